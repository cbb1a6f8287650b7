/* Snake at twice the rate over rows in time: up by a filter, x + size sin^2(speed x), down by a filter.

   x [length][channels] -> y [length][channels]; both ends are extended by their last row. With filters of
   12 taps, up[2 t] = 2 sum u[2 a + 1] x[t + 2 - a], up[2 t + 1] = 2 sum u[2 a] x[t + 3 - a] and
   y[t] = sum d[k] up[2 t - 5 + k]. A thread takes a vector of channels through a span of rows, so that everything
   between x and y stays in its nearest cache. */
#include <limits.h>
#include <omp.h>
#include <stddef.h>
#include <string.h>
#include "answers.h"
#include "snake.h"
#include "vector.h"

#define TAPS 12
#define HALF (TAPS / 2)
#define SPAN 96 /* rows of y */
#define WIDE (2 * SPAN + TAPS)
#define INLINE static inline __attribute__((always_inline))

INLINE Vector load(const float *from, int count) {
  Vector v = {0};
  memcpy(&v, from, sizeof(float) * count);
  return v;
}

/* Rows first..last of `count` channels; x and y point to the first of these channels. */
INLINE void strip(int count, int length, int channels, int first, int last, const float *x, const float *up,
                  const float *down, Vector speed, Vector size, float *y) {
  Vector wide[WIDE];
  const int from = 2 * first - 5, end = 2 * last + 6; /* rows of the doubled signal, may lie outside */
  const int low = from < 0 ? 0 : from, high = end > 2 * length ? 2 * length : end;
  for (int n = low; n < high; n++) {
    /* odd rows take the even taps from one row later on */
    const int is_odd = n & 1, newest = (n >> 1) + 2 + is_odd;
    Vector sum = {0};
    for (int a = 0; a < HALF; a++) {
      int t = newest - a;
      t = t < 0 ? 0 : t >= length ? length - 1 : t;
      sum += load(x + (size_t)t * channels, count) * up[2 * a + 1 - is_odd];
    }
    wide[n - from] = sum;
  }
  for (int n = low; n < high; n++) {
    float *row = (float *)&wide[n - from];
#pragma omp simd
    for (int i = 0; i < LANES; i++) row[i] += size[i] * sine_squared(speed[i] * row[i]);
  }
  for (int n = from; n < low; n++) wide[n - from] = wide[low - from];
  for (int n = high; n < end; n++) wide[n - from] = wide[high - 1 - from];
  for (int t = first; t < last; t++) {
    Vector sum = {0};
    for (int k = 0; k < TAPS; k++) sum += wide[2 * (t - first) + k] * down[k];
    memcpy(y + (size_t)t * channels, &sum, sizeof(float) * count);
  }
}

/* up, down [12], speed, size [channels]. WRONG_SIZE for no rows, channels or threads, and for more rows
   than can be doubled. */
int sonant_oversampled_snake(int length, int channels, const float *x, const float *up, const float *down,
                             const float *speed, const float *size, float *y, int threads) {
  if (length < 1 || length > INT_MAX / 2 - TAPS || channels < 1 || threads < 1) return WRONG_SIZE;
  const int strips = (channels + LANES - 1) / LANES, spans = (length + SPAN - 1) / SPAN;
  float twice[TAPS];
  for (int k = 0; k < TAPS; k++) twice[k] = 2 * up[k];
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int unit = 0; unit < spans * strips; unit++) {
    const int first = unit / strips * SPAN, start = unit % strips * LANES;
    const int last = first + SPAN < length ? first + SPAN : length;
    const int left = channels - start, count = left < LANES ? left : LANES;
    const Vector fast = load(speed + start, count), large = load(size + start, count);
#define STRIP(COUNT) strip(COUNT, length, channels, first, last, x + start, twice, down, fast, large, y + start)
    if (count == LANES)
      STRIP(LANES);
    else if (count == LANES / 2)
      STRIP(LANES / 2);
    else
      STRIP(count);
#undef STRIP
  }
  return DONE;
}
