/* Causal convolutions and linear layers over rows in time, float32 or bfloat16 products. Plain C.

   One call takes a piece of `length` rows and the rows before it, applies Snake to the piece when asked
   to, and gives the products, the bias, a residual, and the rows that the next piece starts from.
   A transposed convolution is the same thing with two taps and `stride` times the outputs.

   Every output is summed in an order that depends on the weight's shape alone: however a signal is cut
   into pieces, and on any number of threads, the samples are the same to the bit.

   Weight layout: tiles of two vectors of outputs (with 32 registers of two to four, whichever leaves fewest
   unused), [tile][taps * inputs][tile] floats, or [tile][taps * inputs / 2][tile][2] bfloat16 for the dot
   product instruction that multiplies pairs and sums in float32. */
#include <limits.h>
#include <omp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "answers.h"
#include "memory.h"
#include "snake.h"
#include "vector.h"
#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

#define MOST_VECTORS (SUMS > 12 ? 4 : 2) /* of a tile */
#define DEPTH 512 /* inputs summed before the total is touched: their weights stay in the core's cache */
#define SPAN 256  /* rows that one thread takes through all weights of a tile */
#define MOST_ROWS 12
#define INLINE static inline __attribute__((always_inline))

typedef float Loose __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

typedef struct {
  int inputs, outputs, taps, dilation, is_narrow, tiles, vectors;
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

/* Vectors of a tile: fewest unused outputs, then the widest. */
static int vectors_of(int outputs) {
  int best = 0, least = 0;
  for (int vectors = MOST_VECTORS; vectors >= 2; vectors--) {
    const int width = vectors * LANES, total = (outputs + width - 1) / width * width;
    if (!best || total < least) best = vectors, least = total;
  }
  return best;
}

/* Weights [outputs][taps][inputs]; inputs must be even when narrow. NULL when memory runs out, for other sizes, for
   more rows before a piece than can be counted, and for narrow products where there is no instruction for them. */
Conv *sonant_conv_new(int inputs, int outputs, int taps, int dilation, int is_narrow, const float *weights) {
  if (inputs < 1 || outputs < 1 || taps < 1 || dilation < 1 || (taps > 1 && dilation > INT_MAX / (taps - 1)) || (is_narrow && (inputs % 2 || !sonant_conv_has_bfloat16())))
    return NULL;
  Conv *made = calloc(1, sizeof *made);
  if (!made) return NULL;
  const int vectors = vectors_of(outputs), columns = vectors * LANES;
  const int tiles = (outputs + columns - 1) / columns;
  const size_t depth = (size_t)taps * inputs;
  *made = (Conv){inputs, outputs, taps, dilation, is_narrow, tiles, vectors, NULL, NULL};
  made->weights = sonant_take(tiles * depth * columns * (is_narrow ? 2 : 4), &made->slab);
  if (!made->weights) {
    free(made);
    return NULL;
  }
#pragma omp parallel for schedule(static)
  for (int tile = 0; tile < tiles; tile++)
    for (size_t start = 0; start < depth; start += 16) { /* a cache line of each row at a time */
      const size_t end = start + 16 < depth ? start + 16 : depth;
      for (int j = 0; j < columns; j++) {
        const int row = tile * columns + j;
        for (size_t k = start; k < end; k++) {
          const float value = row < outputs ? weights[row * depth + k] : 0;
          if (is_narrow)
            ((uint16_t *)made->weights)[((tile * depth + k) / 2 * columns + j) * 2 + k % 2] = bfloat16(value);
          else
            ((float *)made->weights)[(tile * depth + k) * columns + j] = value;
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
INLINE void sum_float(int count, int vectors, const float *a, size_t row, int taps, size_t tap, int depth,
                      const float *w, size_t tap_weights, Vector acc[MOST_ROWS][MOST_VECTORS]) {
  for (int k = 0; k < taps; k++, a += tap, w += tap_weights)
    for (int c = 0; c < depth; c++) {
      const Vector *v = (const Vector *)(w + (size_t)c * vectors * LANES);
      Vector by[MOST_VECTORS];
      for (int j = 0; j < vectors; j++) by[j] = v[j];
      for (int m = 0; m < count; m++)
        for (int j = 0; j < vectors; j++) acc[m][j] += by[j] * (a[m * row + c] - (Vector){0});
    }
}

#if defined(__AVX512BF16__)
INLINE void sum_narrow(int count, int vectors, const uint32_t *a, size_t row, int taps, size_t tap, int depth,
                       const uint32_t *w, size_t tap_weights, Vector acc[MOST_ROWS][MOST_VECTORS]) {
  for (int k = 0; k < taps; k++, a += tap, w += tap_weights)
    for (int c = 0; c < depth; c++) {
      const __m512i *v = (const __m512i *)(w + (size_t)c * vectors * LANES);
      __m512bh by[MOST_VECTORS];
      for (int j = 0; j < vectors; j++) by[j] = (__m512bh)v[j];
      for (int m = 0; m < count; m++) {
        const __m512bh x = (__m512bh)_mm512_set1_epi32((int)a[m * row + c]);
        for (int j = 0; j < vectors; j++)
          acc[m][j] = (Vector)_mm512_dpbf16_ps((__m512)acc[m][j], by[j], x);
      }
    }
}
#else
#define sum_narrow(count, vectors, a, row, taps, tap, depth, w, tap_weights, acc) ((void)0)
#endif

INLINE void sum_rows(int count, int vectors, int is_narrow, const uint32_t *a, size_t row, int taps, size_t tap,
                     int depth, const uint32_t *w, size_t tap_weights, float *to, size_t stride) {
  Vector acc[MOST_ROWS][MOST_VECTORS];
  for (int m = 0; m < count; m++)
    for (int j = 0; j < vectors; j++) acc[m][j] = (Vector){0};
  if (is_narrow)
    sum_narrow(count, vectors, a, row, taps, tap, depth, w, tap_weights, acc);
  else
    sum_float(count, vectors, (const float *)a, row, taps, tap, depth, (const float *)w, tap_weights, acc);
  for (int m = 0; m < count; m++) {
    Loose *at = (Loose *)(to + m * stride);
    for (int j = 0; j < vectors; j++) at[j] += acc[m][j];
  }
}

/* Rows first..last of one tile: to[m][columns] += the products. `most` rows of sums fit into registers. */
INLINE void sum_tile(const Conv *c, int vectors, int most, int is_narrow, int tile, const uint32_t *in,
                     int first, int last, float *to, size_t stride) {
  const int width = is_narrow ? c->inputs / 2 : c->inputs; /* words of a row */
  const int together = width >= DEPTH ? 1 : DEPTH / width; /* taps of a block */
  const size_t row_weights = (size_t)width * vectors * LANES;
  const uint32_t *weights = (const uint32_t *)c->weights + (size_t)tile * c->taps * row_weights;
  for (int k = 0; k < c->taps; k += together) {
    const int taps = c->taps - k < together ? c->taps - k : together;
    for (int start = 0; start < width; start += DEPTH) {
      const int depth = width - start < DEPTH ? width - start : DEPTH;
      const uint32_t *w = weights + k * row_weights + (size_t)start * vectors * LANES;
      for (int m = first; m < last; m += most) {
        const uint32_t *a = in + ((size_t)m + (size_t)k * c->dilation) * width + start;
        float *at = to + (size_t)(m - first) * stride;
        const size_t tap = (size_t)c->dilation * width;
#define CASE(M) \
  case M: \
    if (M <= most) sum_rows(M, vectors, is_narrow, a, width, taps, tap, depth, w, row_weights, at, stride); \
    break;
        switch (last - m < most ? last - m : most) {
          CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
          CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
        }
#undef CASE
      }
    }
  }
}

#define TILE(VECTORS, NARROW, NAME) \
  static void NAME(const Conv *c, int tile, const uint32_t *in, int first, int last, float *to, size_t stride) { \
    sum_tile(c, VECTORS, SUMS / VECTORS, NARROW, tile, in, first, last, to, stride); \
  }
TILE(2, 0, sum_tile_2)
TILE(2, 1, sum_tile_2_narrow)
#if MOST_VECTORS > 2
TILE(3, 0, sum_tile_3)
TILE(3, 1, sum_tile_3_narrow)
TILE(4, 0, sum_tile_4)
TILE(4, 1, sum_tile_4_narrow)
#else
#define sum_tile_3 NULL
#define sum_tile_3_narrow NULL
#define sum_tile_4 NULL
#define sum_tile_4_narrow NULL
#endif

typedef void (*Tile)(const Conv *, int, const uint32_t *, int, int, float *, size_t);
static const Tile TILES[2][3] = {{sum_tile_2, sum_tile_3, sum_tile_4},
                                 {sum_tile_2_narrow, sum_tile_3_narrow, sum_tile_4_narrow}};

/* One row [inputs] through Snake, x + size sin^2(speed x), or unchanged when there is no speed. */
static void activate(const float *x, const float *speed, const float *size, float *to, int inputs) {
  if (!speed) {
    memcpy(to, x, sizeof(float) * inputs);
    return;
  }
#pragma omp simd
  for (int i = 0; i < inputs; i++) to[i] = x[i] + size[i] * sine_squared(speed[i] * x[i]);
}

/* The products of `in` [context + length][inputs], floats or bfloat16, by all threads of the caller's team. */
static void multiply(const Conv *c, int length, const uint32_t *in, const float *bias, const float *residual,
                     float *y) {
  const int outputs = c->outputs, spans = (length + SPAN - 1) / SPAN, width = c->vectors * LANES;
  const Tile sum = TILES[c->is_narrow][c->vectors - 2];
  float part[SPAN * MOST_VECTORS * LANES]; /* a tile that is not full; at most 64 KiB */
#pragma omp for schedule(static)
  for (int unit = 0; unit < c->tiles * spans; unit++) {
    const int tile = unit / spans, first = unit % spans * SPAN;
    const int last = first + SPAN < length ? first + SPAN : length;
    const int column = tile * width, left = outputs - column;
    const int is_full = left >= width, columns = is_full ? width : left;
    float *to = is_full ? y + (size_t)first * outputs + column : part;
    const size_t stride = is_full ? outputs : width;
    for (int t = first; t < last; t++) {
      float *at = to + (size_t)(t - first) * stride;
      const float *add = residual ? residual + (size_t)t * outputs + column : NULL;
      for (int j = 0; j < width; j++)
        at[j] = j < columns ? (bias ? bias[column + j] : 0) + (add ? add[j] : 0) : 0;
    }
    sum(c, tile, in, first, last, to, stride);
    if (!is_full)
      for (int t = first; t < last; t++)
        memcpy(y + (size_t)t * outputs + column, part + (size_t)(t - first) * width, sizeof(float) * columns);
  }
}

/* x [length][inputs] and the rows before it, past [(taps - 1) * dilation][inputs], already activated.
   speed, size [inputs], bias [outputs], residual [length][outputs] may be NULL. y [length][outputs];
   next is the past of the next piece. Without past and next, x itself begins with the rows before the piece,
   [(taps - 1) * dilation + length][inputs]. A length of 0 hands the past on. WRONG_SIZE for a length below 0 or beyond
   counting, for no threads, and for half of a Snake. */
int sonant_conv_run(const Conv *c, int length, const float *x, const float *speed, const float *size,
                    const float *past, float *next, const float *bias, const float *residual, float *y,
                    int threads) {
  const int context = (c->taps - 1) * c->dilation, inputs = c->inputs;
  if (length < 0 || length > INT_MAX - context || threads < 1 || !speed != !size) return WRONG_SIZE;
  const int rows = context + length;
  if (!rows) return DONE;
  const int is_plain = !speed && (!context || !past); /* x is taken as it lies */
  float *wide = is_plain ? (float *)x : malloc(sizeof(float) * rows * inputs);
  uint16_t *narrow = c->is_narrow ? malloc(sizeof(uint16_t) * rows * inputs) : NULL;
  if (!wide || (c->is_narrow && !narrow)) {
    if (!is_plain) free(wide);
    free(narrow);
    return NO_MEMORY;
  }
#pragma omp parallel num_threads(threads)
  {
    if (narrow || !is_plain) {
#pragma omp for schedule(static)
      for (int t = 0; t < rows; t++) {
        float *to = wide + (size_t)t * inputs;
        if (!is_plain) {
          if (t < context && past)
            memcpy(to, past + (size_t)t * inputs, sizeof(float) * inputs);
          else
            activate(x + (size_t)(past ? t - context : t) * inputs, speed, size, to, inputs);
        }
        if (narrow)
          for (int i = 0; i < inputs; i++) narrow[(size_t)t * inputs + i] = bfloat16(to[i]);
      }
    }
    multiply(c, length, narrow ? (const uint32_t *)narrow : (const uint32_t *)wide, bias, residual, y);
  }
  if (next) memcpy(next, wide + (size_t)length * inputs, sizeof(float) * context * inputs);
  if (!is_plain) free(wide);
  free(narrow);
  return DONE;
}
