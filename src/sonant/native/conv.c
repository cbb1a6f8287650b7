/* Causal convolutions and linear layers over rows in time, float32 or bfloat16 products. Plain C.

   One call takes a piece of `length` rows and the rows before it, applies Snake to the piece when asked
   to, and gives the products, the bias, a residual, and the rows that the next piece starts from.
   A transposed convolution is the same thing with two taps and `stride` times the outputs.

   Every output is summed in an order that depends on the weight's shape alone: however a signal is cut
   into pieces, and on any number of threads, the samples are the same to the bit.

   Weight layout: tiles of 48 outputs, [tile][taps * inputs][48] floats, or [tile][taps * inputs / 2][48][2]
   bfloat16 for the dot product instruction that multiplies pairs and sums in float32. */
#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "memory.h"
#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

#define COLUMNS 48
#define VECTORS 3
#define DEPTH 512 /* inputs summed before the total is touched: their weights stay in the core's cache */
#define SPAN 256  /* rows that one thread takes through all weights of a tile */
#if defined(__AVX512F__)
#define ROWS 8
#else
#define ROWS 2
#endif
#define INLINE static inline __attribute__((always_inline))

typedef float Vector __attribute__((vector_size(64)));
typedef float Loose __attribute__((vector_size(64), aligned(4), may_alias));

typedef struct {
  int inputs, outputs, taps, dilation, is_narrow, tiles;
  void *weights; /* float or pairs of bfloat16 */
  Slab *slab;
} Conv;

/* 1 where bfloat16 products have an instruction. */
int sonant_conv_has_bfloat16(void) {
#if defined(__AVX512BF16__)
  return 1;
#else
  return 0;
#endif
}

static uint16_t bfloat16(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16); /* to nearest, ties to even; no NaN here */
}

/* Weights [outputs][taps][inputs]; inputs must be even when narrow. NULL when memory runs out. */
Conv *sonant_conv_new(int inputs, int outputs, int taps, int dilation, int is_narrow, const float *weights) {
  Conv *made = calloc(1, sizeof *made);
  if (!made) return NULL;
  const int tiles = (outputs + COLUMNS - 1) / COLUMNS;
  const size_t depth = (size_t)taps * inputs;
  *made = (Conv){inputs, outputs, taps, dilation, is_narrow, tiles, NULL, NULL};
  made->weights = sonant_take(tiles * depth * COLUMNS * (is_narrow ? 2 : 4), &made->slab);
  if (!made->weights) {
    free(made);
    return NULL;
  }
#pragma omp parallel for schedule(static)
  for (int tile = 0; tile < tiles; tile++)
    for (size_t start = 0; start < depth; start += 16) { /* a cache line of each row at a time */
      const size_t end = start + 16 < depth ? start + 16 : depth;
      for (int j = 0; j < COLUMNS; j++) {
        const int row = tile * COLUMNS + j;
        for (size_t k = start; k < end; k++) {
          const float value = row < outputs ? weights[row * depth + k] : 0;
          if (is_narrow)
            ((uint16_t *)made->weights)[((tile * depth + k) / 2 * COLUMNS + j) * 2 + k % 2] = bfloat16(value);
          else
            ((float *)made->weights)[(tile * depth + k) * COLUMNS + j] = value;
        }
      }
    }
  return made;
}

void sonant_conv_free(Conv *c) {
  if (c) { sonant_leave(c->slab); free(c); }
}

/* One block of sums: `count` rows of a tile, `taps` taps and `depth` inputs of each; words are floats or
   pairs of bfloat16, strides count words. */
INLINE void sum_float(int count, const float *a, size_t row, int taps, size_t tap, int depth, const float *w,
                      size_t tap_weights, Vector acc[ROWS][VECTORS]) {
  for (int k = 0; k < taps; k++, a += tap, w += tap_weights)
    for (int c = 0; c < depth; c++) {
      const Vector *v = (const Vector *)(w + (size_t)c * COLUMNS);
      const Vector w0 = v[0], w1 = v[1], w2 = v[2];
      for (int m = 0; m < count; m++) {
        const Vector by = a[m * row + c] - (Vector){0};
        acc[m][0] += w0 * by;
        acc[m][1] += w1 * by;
        acc[m][2] += w2 * by;
      }
    }
}

#if defined(__AVX512BF16__)
INLINE void sum_narrow(int count, const uint32_t *a, size_t row, int taps, size_t tap, int depth,
                       const uint32_t *w, size_t tap_weights, Vector acc[ROWS][VECTORS]) {
  for (int k = 0; k < taps; k++, a += tap, w += tap_weights)
    for (int c = 0; c < depth; c++) {
      const __m512i *v = (const __m512i *)(w + (size_t)c * COLUMNS);
      const __m512bh w0 = (__m512bh)v[0], w1 = (__m512bh)v[1], w2 = (__m512bh)v[2];
      for (int m = 0; m < count; m++) {
        const __m512bh by = (__m512bh)_mm512_set1_epi32((int)a[m * row + c]);
        acc[m][0] = (Vector)_mm512_dpbf16_ps((__m512)acc[m][0], w0, by);
        acc[m][1] = (Vector)_mm512_dpbf16_ps((__m512)acc[m][1], w1, by);
        acc[m][2] = (Vector)_mm512_dpbf16_ps((__m512)acc[m][2], w2, by);
      }
    }
}
#else
#define sum_narrow(count, a, row, taps, tap, depth, w, tap_weights, acc) ((void)0)
#endif

INLINE void sum_rows(int count, int is_narrow, const uint32_t *a, size_t row, int taps, size_t tap, int depth,
                     const uint32_t *w, size_t tap_weights, float *to, size_t stride) {
  Vector acc[ROWS][VECTORS];
  for (int m = 0; m < count; m++)
    for (int j = 0; j < VECTORS; j++) acc[m][j] = (Vector){0};
  if (is_narrow)
    sum_narrow(count, a, row, taps, tap, depth, w, tap_weights, acc);
  else
    sum_float(count, (const float *)a, row, taps, tap, depth, (const float *)w, tap_weights, acc);
  for (int m = 0; m < count; m++) {
    Loose *at = (Loose *)(to + m * stride);
    for (int j = 0; j < VECTORS; j++) at[j] += acc[m][j];
  }
}

/* Rows first..last of one tile: to[m][48] += the products. */
static void sum_tile(const Conv *c, int tile, const uint32_t *in, int first, int last, float *to, size_t stride) {
  const int width = c->is_narrow ? c->inputs / 2 : c->inputs; /* words of a row */
  const int together = width >= DEPTH ? 1 : DEPTH / width;    /* taps of a block */
  const uint32_t *weights = (const uint32_t *)c->weights + (size_t)tile * c->taps * width * COLUMNS;
  for (int k = 0; k < c->taps; k += together) {
    const int taps = c->taps - k < together ? c->taps - k : together;
    for (int start = 0; start < width; start += DEPTH) {
      const int depth = width - start < DEPTH ? width - start : DEPTH;
      const uint32_t *w = weights + ((size_t)k * width + start) * COLUMNS;
      for (int m = first; m < last; m += ROWS) {
        const int count = last - m < ROWS ? last - m : ROWS;
        const uint32_t *a = in + ((size_t)m + (size_t)k * c->dilation) * width + start;
        float *at = to + (size_t)(m - first) * stride;
#define ARGUMENTS(M, NARROW) \
  M, NARROW, a, width, taps, (size_t)c->dilation *width, depth, w, (size_t)width *COLUMNS, at, stride
#define CASE(M) \
  case M: \
    if (c->is_narrow) sum_rows(ARGUMENTS(M, 1)); else sum_rows(ARGUMENTS(M, 0)); \
    break;
        switch (count) {
          CASE(1) CASE(2)
#if ROWS == 8
          CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8)
#endif
        }
#undef CASE
#undef ARGUMENTS
      }
    }
  }
}

/* sin(z)^2, which has period pi; absolute error below 2e-7 for |z| up to some thousands. */
static inline float sine_squared(float z) {
  const float n = rintf(z * 0.318309886f);
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
  const float f = __builtin_fmaf(n, 8.74227766e-8f, __builtin_fmaf(n, -3.14159274f, z));
#else
  const float f = (float)((double)z - 3.14159265358979323846 * n);
#endif
  const float q = f * f;
  float p = -2.50521084e-8f;
  p = p * q + 2.75573192e-6f;
  p = p * q - 1.98412698e-4f;
  p = p * q + 8.33333333e-3f;
  p = p * q - 1.66666667e-1f;
  const float s = f + f * q * p;
  return s * s;
}

/* One row [inputs] through Snake, x + size sin^2(speed x), or unchanged when there is no speed. */
static void activate(const float *x, const float *speed, const float *size, float *to, int inputs) {
  if (!speed) {
    memcpy(to, x, sizeof(float) * inputs);
    return;
  }
#pragma omp simd
  for (int i = 0; i < inputs; i++) to[i] = x[i] + size[i] * sine_squared(speed[i] * x[i]);
}

/* x [length][inputs] and the rows before it, past [(taps - 1) * dilation][inputs], already activated.
   speed, size [inputs], bias [outputs], residual [length][outputs] may be NULL. y [length][outputs];
   next is the past of the next piece. False when memory runs out. */
int sonant_conv_run(const Conv *c, int length, const float *x, const float *speed, const float *size,
                    const float *past, float *next, const float *bias, const float *residual, float *y,
                    int threads) {
  const int context = (c->taps - 1) * c->dilation, inputs = c->inputs, outputs = c->outputs;
  const int rows = context + length;
  const int is_plain = !speed && !context; /* x is taken as it lies */
  float *wide = is_plain ? (float *)x : malloc(sizeof(float) * rows * inputs);
  uint16_t *narrow = c->is_narrow ? malloc(sizeof(uint16_t) * rows * inputs) : NULL;
  if (!wide || (c->is_narrow && !narrow)) {
    if (!is_plain) free(wide);
    free(narrow);
    return 0;
  }
  const int spans = (length + SPAN - 1) / SPAN;
#pragma omp parallel num_threads(threads)
  {
    float *part = malloc(sizeof(float) * SPAN * COLUMNS); /* a tile that is not full; 48 KiB */
#pragma omp for schedule(static)
    for (int t = 0; t < rows; t++) {
      float *to = wide + (size_t)t * inputs;
      if (t < context)
        memcpy(to, past + (size_t)t * inputs, sizeof(float) * inputs);
      else if (!is_plain)
        activate(x + (size_t)(t - context) * inputs, speed, size, to, inputs);
      if (narrow)
        for (int i = 0; i < inputs; i++) narrow[(size_t)t * inputs + i] = bfloat16(to[i]);
    }
    const uint32_t *in = narrow ? (const uint32_t *)narrow : (const uint32_t *)wide;
#pragma omp for schedule(static)
    for (int unit = 0; unit < c->tiles * spans; unit++) {
      const int tile = unit / spans, first = unit % spans * SPAN;
      const int last = first + SPAN < length ? first + SPAN : length;
      const int column = tile * COLUMNS, left = outputs - column;
      const int is_full = left >= COLUMNS, columns = is_full ? COLUMNS : left;
      float *to = is_full ? y + (size_t)first * outputs + column : part;
      const size_t stride = is_full ? outputs : COLUMNS;
      for (int t = first; t < last; t++) {
        float *at = to + (size_t)(t - first) * stride;
        const float *add = residual ? residual + (size_t)t * outputs + column : NULL;
        for (int j = 0; j < COLUMNS; j++)
          at[j] = j < columns ? (bias ? bias[column + j] : 0) + (add ? add[j] : 0) : 0;
      }
      sum_tile(c, tile, in, first, last, to, stride);
      if (!is_full)
        for (int t = first; t < last; t++)
          memcpy(y + (size_t)t * outputs + column, part + (size_t)(t - first) * COLUMNS,
                 sizeof(float) * columns);
    }
    free(part);
  }
  memcpy(next, wide + (size_t)length * inputs, sizeof(float) * context * inputs);
  if (!is_plain) free(wide);
  free(narrow);
  return 1;
}
