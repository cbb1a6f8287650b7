/* Decoder stack of the Qwen kind with bfloat16, 12-bit, int8 or int4 weights, for CPUs. Plain C behind a C ABI.

   One call runs M tokens through all layers: RMS norm, grouped-query attention over a float32 cache
   that the caller owns, rotary positions, SwiGLU. int8 and int4 weights are quantised symmetrically by groups along
   the input axis, activations by the same groups on the fly: to int8 (one plane), or to 16 bits in two planes of int8,
   256 times the first plus the second, which meet the same weights while these are at hand. Sums are exact int32 within a
   group and float32 across groups. A 12-bit weight is an int8 and, in another matrix, an int4 of a sixteenth the scale,
   which is multiplied with the first plane only: what the second would add is below the weight's own rounding. bfloat16 weights meet float32 activations: nothing is lost when the
   checkpoint was bfloat16, and half the bytes of float32 are read. src/sonant/native/__init__.py compiles and wraps this file, and a
   test holds it to the float network.

   Weight layout: tiles of 64 output rows; inside a tile [K/4][64][4] bytes holding w + 128 (int8), or
   [K/8][64][4] bytes with w + 8 of k..k+3 in the low nibbles and k+4..k+7 in the high ones (int4);
   bfloat16 scales [tile][K/group][64]; 12 bits are all int8 tiles, then all int4 tiles; or, for bfloat16 weights, [K][2][16][2] with rows i and i + 16 of a half tile side
   by side, so that one shift and one mask widen them. Integers are stored unsigned, because the dot product instructions multiply
   unsigned by signed bytes; the offset is taken out through the sum of the activations. */
#include <math.h>
#include <omp.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "memory.h"
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#define TILE 64
#define MAX_BLOCK 4

typedef struct Linear {
  int rows, inputs, bits, group, planes;
  uint8_t *weights;
  uint16_t *scales;
  Slab *slab;
  struct Linear *fine; /* the int4 part of 12-bit weights, else NULL; its products are `part` times its scales */
  float part;
} Linear;

typedef struct {
  Linear *qkv, *out, *gate_up, *down;
  const float *input_norm, *post_norm, *query_norm, *key_norm, *qkv_bias;
} Layer;

typedef struct {
  int arrived, round;
} Barrier;

typedef struct {
  int layers, width, heads, kv_heads, head_dim, intermediate, max_tokens;
  float eps, theta;
  const float *final_norm;
  Layer *layer;
  float *x, *wide, *attended, *active; /* scratch, [max_tokens][...] */
  struct Input *input;                 /* scratch, tokens as the next matrix takes them */
  Barrier barrier;
} Stack;

size_t sonant_weight_bytes(int rows, int inputs, int bits) { return (size_t)rows * inputs * bits / 8; }
size_t sonant_scale_count(int rows, int inputs, int bits, int group) {
  return bits == 16 ? 0 : (size_t)rows * (inputs / group);
}

/* rows must be a multiple of 64; inputs of group and group, at most 128, of 32 unless bits is 16. planes of int8,
   1 or 2, hold an activation. NULL when memory runs out. */
Linear *sonant_linear_new(int rows, int inputs, int bits, int group, int planes) {
  Linear *made = calloc(1, sizeof *made);
  if (!made) return NULL;
  *made = (Linear){rows, inputs, bits == 12 ? 8 : bits, group, planes, NULL, NULL, NULL, NULL, 1};
  size_t weights = sonant_weight_bytes(rows, inputs, bits);
  const size_t scales = sonant_scale_count(rows, inputs, bits, group) * sizeof(uint16_t);
  made->weights = sonant_take(weights + scales, &made->slab);
  if (!made->weights) { free(made); return NULL; }
  made->scales = (uint16_t *)(made->weights + weights);
  if (bits == 12) {
    made->fine = calloc(1, sizeof *made);
    if (!made->fine) { sonant_leave(made->slab); free(made); return NULL; }
    *made->fine = (Linear){rows, inputs, 4, group, 1, made->weights + (size_t)rows * inputs, made->scales, NULL, NULL,
                           planes == 2 ? 256 / 16.0f : 1 / 16.0f};
  }
  return made;
}

void sonant_linear_free(Linear *l) {
  if (l) { sonant_leave(l->slab); free(l->fine); free(l); }
}

uint8_t *sonant_linear_weights(Linear *l) { return l->weights; }
uint16_t *sonant_linear_scales(Linear *l) { return l->scales; }

/* Quantise float weights [rows][inputs]: scale = largest magnitude of the group / 127 (or / 8 towards
   the sign of that magnitude for int4, which then uses all sixteen levels). */
static void pack_bfloat16(Linear *l, const float *weights) {
  uint16_t *to = (uint16_t *)l->weights;
#pragma omp parallel for schedule(static)
  for (int tile = 0; tile < l->rows / TILE; tile++)
    for (int k = 0; k < l->inputs; k++)
      for (int j = 0; j < TILE; j++) {
        uint32_t bits;
        memcpy(&bits, weights + (size_t)(tile * TILE + j) * l->inputs + k, 4);
        size_t place = ((size_t)tile * l->inputs + k) * TILE + (j / 32) * 32 + (j % 16) * 2 + (j / 16) % 2;
        to[place] = (uint16_t)(bits >> 16); /* the caller made sure that nothing is cut off */
      }
}

/* A scale as bfloat16, away from zero so that no weight is cut off; and back. */
static uint16_t narrow_scale(float scale) {
  uint32_t bits;
  memcpy(&bits, &scale, 4);
  return (uint16_t)((bits + 0xffff) >> 16);
}

static inline float wide_scale(uint16_t scale) {
  uint32_t bits = (uint32_t)scale << 16;
  float wide;
  memcpy(&wide, &bits, 4);
  return wide;
}

/* A row of codes [inputs] to its place in a tile. */
static void spread(const uint8_t *row, int inputs, int bits, int j, uint8_t *tile) {
  if (bits == 8)
    for (int k = 0; k < inputs; k += 4) memcpy(tile + (size_t)(k / 4) * 256 + j * 4, row + k, 4);
  else
    for (int k = 0; k < inputs; k += 8)
      for (int i = 0; i < 4; i++)
        tile[(size_t)(k / 8) * 256 + j * 4 + i] = (uint8_t)(row[k + i] | row[k + 4 + i] << 4);
}

void sonant_linear_pack(Linear *l, const float *weights) {
  if (l->bits == 16) { pack_bfloat16(l, weights); return; }
  const int groups = l->inputs / l->group, inputs = l->inputs;
  const size_t tile_bytes = sonant_weight_bytes(TILE, inputs, l->bits), fine_bytes = sonant_weight_bytes(TILE, inputs, 4);
#pragma omp parallel
  {
    uint8_t *row = malloc(2 * inputs), *rest = row + inputs; /* one row of codes, before it is spread over its tile */
#pragma omp for schedule(static)
    for (int tile = 0; tile < l->rows / TILE; tile++)
      for (int j = 0; j < TILE; j++) {
        const float *from = weights + (size_t)(tile * TILE + j) * inputs;
        for (int g = 0; g < groups; g++) {
          const float *part = from + (size_t)g * l->group;
          float low = 0, high = 0;
          for (int i = 0; i < l->group; i++) {
            low = part[i] < low ? part[i] : low;
            high = part[i] > high ? part[i] : high;
          }
          float peak = -low > high ? low : high;
          float scale = l->bits == 8 ? fabsf(peak) / 127 : peak / -8;
          if (scale == 0) scale = 1e-12f;
          const uint16_t kept = narrow_scale(scale);
          l->scales[((size_t)tile * groups + g) * TILE + j] = kept;
          scale = wide_scale(kept);
          const int floor = l->bits == 8 ? -127 : -8, ceiling = l->bits == 8 ? 127 : 7;
          const int offset = l->bits == 8 ? 128 : 8;
          /* In double, so that halves stay halves: both are bfloat16 numbers, and many quotients lie between two codes. */
          const double inverse = 1.0 / scale;
          for (int i = 0; i < l->group; i++) {
            int q = (int)rintf((float)(part[i] * inverse));
            q = q < floor ? floor : q > ceiling ? ceiling : q;
            row[g * l->group + i] = (uint8_t)(q + offset);
            int r = (int)rintf((float)((part[i] - q * scale) * inverse) * 16);
            rest[g * l->group + i] = (uint8_t)((r < -8 ? -8 : r > 7 ? 7 : r) + 8);
          }
        }
        spread(row, inputs, l->bits, j, l->weights + tile * tile_bytes);
        if (l->fine) spread(rest, inputs, 4, j, l->fine->weights + tile * fine_bytes);
      }
    free(row);
  }
}

/* Activations [inputs] -> codes [2][inputs], a scale for each group, and sums [2][groups]: of the codes, and of codes[0].
   With two planes a code has 16 bits, and is 256 * codes[0] + codes[1]; with one it has 8. */
static void quantise(const float *x, int inputs, int group, int planes, int8_t *codes, float *scales, int32_t *sums) {
  for (int g = 0; g < inputs / group; g++) {
    const float *part = x + (size_t)g * group;
    int8_t *high = codes + (size_t)g * group, *low = high + inputs;
    float peak = 0;
    for (int i = 0; i < group; i++) { float a = fabsf(part[i]); peak = a > peak ? a : peak; }
    float scale = peak / (planes == 2 ? 127 * 256 : 127);
    if (scale < 1e-30f) scale = 1e-30f;
    float inverse = 1 / scale;
    int32_t sum = 0, first = 0;
    if (planes == 2)
      for (int i = 0; i < group; i++) {
        int q = (int)rintf(part[i] * inverse), l = (int8_t)q;
        low[i] = (int8_t)l;
        high[i] = (int8_t)((q - l) / 256);
        sum += q;
        first += (q - l) / 256;
      }
    else
      for (int i = 0; i < group; i++) {
        int q = (int)rintf(part[i] * inverse);
        high[i] = (int8_t)q;
        sum += q;
      }
    scales[g] = scale;
    sums[g] = sum;
    sums[inputs / group + g] = planes == 2 ? first : sum;
  }
}

/* Tokens as a matrix takes them: floats for bfloat16 weights, codes, scales and sums otherwise. */
typedef struct Input {
  float *x;
  int8_t *codes;
  float *scales;
  int32_t *sums;
} Input;

/* Token m of the input. */
static void put(const Linear *l, const Input *in, int m, const float *x) {
  const int groups = l->inputs / l->group;
  if (l->bits == 16)
    memcpy(in->x + (size_t)m * l->inputs, x, sizeof(float) * l->inputs);
  else
    quantise(x, l->inputs, l->group, l->planes, in->codes + (size_t)m * 2 * l->inputs, in->scales + (size_t)m * groups,
             in->sums + (size_t)m * 2 * groups);
}

#if defined(__AVX512F__)
static inline __attribute__((always_inline)) void wide_avx512(const Linear *l, int count, const float *x,
                                                              float *out, int out_stride, int first, int last) {
  const __m512i high = _mm512_set1_epi32((int)0xffff0000);
  for (int tile = first; tile < last; tile++) {
    const uint8_t *w = l->weights + (size_t)tile * sonant_weight_bytes(TILE, l->inputs, 16);
    __m512 total[MAX_BLOCK][4];
    for (int m = 0; m < count; m++)
      for (int j = 0; j < 4; j++) total[m][j] = _mm512_setzero_ps();
    for (int k = 0; k < l->inputs; k++, w += 2 * TILE) {
      __m512i a = _mm512_load_si512(w), b = _mm512_load_si512(w + 64);
      __m512 v[4] = {_mm512_castsi512_ps(_mm512_slli_epi32(a, 16)), _mm512_castsi512_ps(_mm512_and_si512(a, high)),
                     _mm512_castsi512_ps(_mm512_slli_epi32(b, 16)), _mm512_castsi512_ps(_mm512_and_si512(b, high))};
      for (int m = 0; m < count; m++) {
        __m512 by = _mm512_set1_ps(x[(size_t)m * l->inputs + k]);
        for (int j = 0; j < 4; j++) total[m][j] = _mm512_fmadd_ps(v[j], by, total[m][j]);
      }
    }
    for (int m = 0; m < count; m++)
      for (int j = 0; j < 4; j++)
        _mm512_storeu_ps(out + (size_t)m * out_stride + tile * TILE + j * 16, total[m][j]);
  }
}
#endif

/* The same for any processor; the compiler makes vectors of the inner loops. */
static void wide_plain(const Linear *l, int count, const float *x, float *out, int out_stride, int first,
                       int last) {
  for (int tile = first; tile < last; tile++)
    for (int m = 0; m < count; m++) {
      const uint32_t *w = (const uint32_t *)(l->weights + (size_t)tile * sonant_weight_bytes(TILE, l->inputs, 16));
      float total[TILE] = {0};
      for (int k = 0; k < l->inputs; k++, w += TILE / 2) {
        float by = x[(size_t)m * l->inputs + k];
        for (int half = 0; half < 2; half++) {
          float *to = total + half * 32;
          for (int i = 0; i < 16; i++) {
            union { uint32_t bits; float value; } low = {w[half * 16 + i] << 16}, up = {w[half * 16 + i] & 0xffff0000u};
            to[i] += low.value * by;
            to[16 + i] += up.value * by;
          }
        }
      }
      memcpy(out + (size_t)m * out_stride + tile * TILE, total, sizeof total);
    }
}

#if defined(__AVX512VNNI__)
#define DOT(acc, w, a) _mm512_dpbusd_epi32(acc, w, a)
#define FOUR(at) _mm512_set1_epi32(*(const unaligned_int *)(at))
typedef int32_t __attribute__((aligned(1), may_alias)) unaligned_int;

/* Adds to acc the products of `depth` inputs of a tile with plane `a` of the codes. */
static inline __attribute__((always_inline)) void dots_avx512(__m512i (*acc)[4], int count, int bits, int ahead,
                                                              const uint8_t *w, const int8_t *a, int stride,
                                                              int depth) {
  const __m512i low = _mm512_set1_epi8(15);
  if (bits == 8) {
    for (int k = 0; k < depth; k += 4, w += 256) { /* the processor's own prefetch does best here */
      __m512i v[4];
      for (int j = 0; j < 4; j++) v[j] = _mm512_load_si512(w + j * 64);
      for (int m = 0; m < count; m++) {
        __m512i by = FOUR(a + (size_t)m * stride + k);
        for (int j = 0; j < 4; j++) acc[m][j] = DOT(acc[m][j], v[j], by);
      }
    }
  } else {
    for (int k = 0; k < depth; k += 8, w += 256) {
      if (ahead)
        for (int j = 0; j < 4; j++) _mm_prefetch((const char *)w + 8192 + j * 64, _MM_HINT_T0);
      for (int j = 0; j < 4; j++) {
        __m512i v = _mm512_load_si512(w + j * 64);
        __m512i lower = _mm512_and_si512(v, low), upper = _mm512_and_si512(_mm512_srli_epi16(v, 4), low);
        for (int m = 0; m < count; m++) {
          const int8_t *eight = a + (size_t)m * stride + k;
          acc[m][j] = DOT(DOT(acc[m][j], lower, FOUR(eight)), upper, FOUR(eight + 4));
        }
      }
    }
  }
}

/* Sums across groups are kept in `out`, so that the sums within a group keep their registers. Of two planes the first is
   summed, then 256 times that and the second: the group's weights are in the core's nearest cache by then. */
static inline __attribute__((always_inline)) void tiles_avx512(
    const Linear *l, int count, int bits, int planes, const int8_t *codes, const float *code_scales,
    const int32_t *code_sums, int adds, float *out, int out_stride, int first, int last) {
  const int code_stride = 2 * l->inputs, scale_stride = l->inputs / l->group, sum_stride = 2 * scale_stride;
  const int groups = l->inputs / l->group, group = l->group, bytes = TILE * group * bits / 8;
  for (int tile = first; tile < last; tile++) {
    const uint8_t *w = l->weights + (size_t)tile * sonant_weight_bytes(TILE, l->inputs, bits);
    const uint16_t *s = l->scales + (size_t)tile * groups * TILE;
    for (int g = 0; g < groups; g++, s += TILE, w += bytes) {
      const int8_t *a = codes + g * group;
      __m512i acc[MAX_BLOCK][4];
      if (planes == 2) {
        for (int m = 0; m < count; m++)
          for (int j = 0; j < 4; j++) acc[m][j] = _mm512_setzero_si512();
        dots_avx512(acc, count, bits, count <= 2, w, a, code_stride, group);
      }
      for (int m = 0; m < count; m++) {
        __m512i start = _mm512_set1_epi32(-(bits == 8 ? 128 : 8) * code_sums[m * sum_stride + g]);
        for (int j = 0; j < 4; j++)
          acc[m][j] = planes == 2 ? _mm512_add_epi32(_mm512_slli_epi32(acc[m][j], 8), start) : start;
      }
      dots_avx512(acc, count, bits, planes == 1 && count <= 2, w, planes == 2 ? a + l->inputs : a, code_stride, group);
      for (int j = 0; j < 4; j++) {
        const __m512 scale = _mm512_castsi512_ps(
            _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(s + j * 16))), 16));
        for (int m = 0; m < count; m++) {
          float *to = out + (size_t)m * out_stride + tile * TILE + j * 16;
          __m512 by = _mm512_mul_ps(scale, _mm512_set1_ps(code_scales[m * scale_stride + g] * l->part));
          __m512 sum = _mm512_cvtepi32_ps(acc[m][j]);
          _mm512_storeu_ps(to, g || adds ? _mm512_fmadd_ps(sum, by, _mm512_loadu_ps(to)) : _mm512_mul_ps(sum, by));
        }
      }
    }
  }
}
#endif

/* A code from its planes; the second lies `inputs` behind the first. */
static inline int32_t code_of(const int8_t *code, int planes, int inputs) {
  return planes == 2 ? 256 * code[0] + code[inputs] : code[0];
}

#if defined(__AVX2__)
/* Eight rows x four inputs: unsigned w times a of 8 or 16 bits. maddubs would saturate at int16 with 255 x 127
   twice, so the bytes are widened first. */
static inline __m256i dot_avx2(__m256i acc, __m256i w, __m256i a_even, __m256i a_odd) {
  const __m256i mask = _mm256_set1_epi16(0x00ff);
  __m256i even = _mm256_madd_epi16(_mm256_and_si256(w, mask), a_even);
  __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(w, 8), a_odd);
  return _mm256_add_epi32(acc, _mm256_add_epi32(even, odd));
}

static void tiles_avx2(const Linear *l, int count, int bits, int planes, const int8_t *codes, const float *code_scales,
                       const int32_t *code_sums, int adds, float *out, int out_stride, int first, int last) {
  const int groups = l->inputs / l->group, group = l->group;
  const __m256i low = _mm256_set1_epi8(15);
  for (int m = 0; m < count; m++)
    for (int tile = first; tile < last; tile++)
      for (int part = 0; part < 2; part++) { /* 32 rows at a time fit the registers */
        const uint8_t *w = l->weights + (size_t)tile * sonant_weight_bytes(TILE, l->inputs, bits) + part * 128;
        const uint16_t *s = l->scales + (size_t)tile * groups * TILE + part * 32;
        __m256 total[4];
        float *to = out + (size_t)m * out_stride + tile * TILE + part * 32;
        for (int j = 0; j < 4; j++) total[j] = adds ? _mm256_loadu_ps(to + j * 8) : _mm256_setzero_ps();
        for (int g = 0; g < groups; g++, s += TILE) {
          __m256i acc[4];
          for (int j = 0; j < 4; j++)
            acc[j] = _mm256_set1_epi32(-(bits == 8 ? 128 : 8) * code_sums[(size_t)m * 2 * groups + g]);
          const int8_t *a = codes + (size_t)m * 2 * l->inputs + g * group;
          const int step = bits == 8 ? 4 : 8;
          for (int k = 0; k < group; k += step, w += 256) {
            __m256i even[2], odd[2];
            for (int h = 0; h < step / 4; h++) {
              const int8_t *c = a + k + 4 * h;
              int32_t q[4];
              for (int i = 0; i < 4; i++) q[i] = code_of(c + i, planes, l->inputs);
              even[h] = _mm256_set1_epi32((int32_t)(((uint32_t)q[2] << 16) | (uint16_t)q[0]));
              odd[h] = _mm256_set1_epi32((int32_t)(((uint32_t)q[3] << 16) | (uint16_t)q[1]));
            }
            for (int j = 0; j < 4; j++) {
              __m256i v = _mm256_loadu_si256((const __m256i *)(w + j * 32));
              if (bits == 8) {
                acc[j] = dot_avx2(acc[j], v, even[0], odd[0]);
              } else {
                acc[j] = dot_avx2(acc[j], _mm256_and_si256(v, low), even[0], odd[0]);
                acc[j] = dot_avx2(acc[j], _mm256_and_si256(_mm256_srli_epi16(v, 4), low), even[1], odd[1]);
              }
            }
          }
          __m256 by = _mm256_set1_ps(code_scales[(size_t)m * groups + g] * l->part);
          for (int j = 0; j < 4; j++) {
            __m256i eight = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(s + j * 8)));
            __m256 scale = _mm256_castsi256_ps(_mm256_slli_epi32(eight, 16));
            total[j] = _mm256_add_ps(total[j], _mm256_mul_ps(_mm256_cvtepi32_ps(acc[j]), _mm256_mul_ps(scale, by)));
          }
        }
        for (int j = 0; j < 4; j++) _mm256_storeu_ps(to + j * 8, total[j]);
      }
}
#endif

static void tiles_plain(const Linear *l, int count, int bits, int planes, const int8_t *codes, const float *code_scales,
                        const int32_t *code_sums, int adds, float *out, int out_stride, int first, int last) {
  const int groups = l->inputs / l->group, group = l->group;
  for (int m = 0; m < count; m++)
    for (int tile = first; tile < last; tile++) {
      const uint8_t *w = l->weights + (size_t)tile * sonant_weight_bytes(TILE, l->inputs, bits);
      const uint16_t *s = l->scales + (size_t)tile * groups * TILE;
      float total[TILE] = {0}, *to = out + (size_t)m * out_stride + tile * TILE;
      if (adds) memcpy(total, to, sizeof total);
      for (int g = 0; g < groups; g++, s += TILE) {
        const int8_t *a = codes + (size_t)m * 2 * l->inputs + g * group;
        int32_t acc[TILE];
        for (int j = 0; j < TILE; j++) acc[j] = -(bits == 8 ? 128 : 8) * code_sums[(size_t)m * 2 * groups + g];
        const int step = bits == 8 ? 4 : 8;
        for (int k = 0; k < group; k += step, w += 256) {
          int32_t q[8];
          for (int i = 0; i < step; i++) q[i] = code_of(a + k + i, planes, l->inputs);
          for (int j = 0; j < TILE; j++)
            for (int i = 0; i < 4; i++) {
              const int32_t v = w[j * 4 + i];
              acc[j] += bits == 8 ? v * q[i] : (v & 15) * q[i] + (v >> 4) * q[4 + i];
            }
        }
        const float by = code_scales[(size_t)m * groups + g] * l->part;
        for (int j = 0; j < TILE; j++) total[j] += (float)acc[j] * (wide_scale(s[j]) * by);
      }
      memcpy(to, total, sizeof total);
    }
}

static int chosen_path = -1; /* 0 plain, 1 AVX2, 2 AVX512-VNNI; -1 the best that was compiled in */

int sonant_best_path(void) {
#if defined(__AVX512VNNI__)
  return 2;
#elif defined(__AVX2__)
  return 1;
#else
  return 0;
#endif
}

/* Threads that OpenMP, and so torch, uses for work begun on the calling thread. */
void sonant_limit_threads(int threads) { omp_set_num_threads(threads); }

void sonant_choose_path(int path) { chosen_path = path; }

/* out[m][tile * 64 ...] for tiles first..last of `count` (1 to 4) quantised tokens; `adds` to what is there. */
static void narrow_tiles(const Linear *l, int count, const int8_t *codes, const float *scales, const int32_t *sums,
                         int adds, float *out, int out_stride, int first, int last, int path) {
#if defined(__AVX512VNNI__)
  if (path == 2) {
#define CASE(M, B, P) \
  if (count == M && l->bits == B && l->planes == P) { \
    tiles_avx512(l, M, B, P, codes, scales, sums, adds, out, out_stride, first, last); \
    return; \
  }
#define CASES(B, P) CASE(1, B, P) CASE(2, B, P) CASE(3, B, P) CASE(4, B, P)
    CASES(8, 1) CASES(8, 2) CASES(4, 1) CASES(4, 2)
#undef CASES
#undef CASE
  }
#endif
#if defined(__AVX2__)
  if (path >= 1) {
    tiles_avx2(l, count, l->bits, l->planes, codes, scales, sums, adds, out, out_stride, first, last);
    return;
  }
#endif
  (void)path;
  tiles_plain(l, count, l->bits, l->planes, codes, scales, sums, adds, out, out_stride, first, last);
}

static void run_blocks(const Linear *l, int count, const Input *in, float *out, int out_stride, int first,
                      int last) {
  const int groups = l->inputs / l->group;
  const int path = chosen_path < 0 ? sonant_best_path() : chosen_path;
  for (int m = 0; m < count; m += MAX_BLOCK) {
    const int block = count - m < MAX_BLOCK ? count - m : MAX_BLOCK;
    float *o = out + (size_t)m * out_stride;
    if (l->bits == 16) {
      const float *x = in->x + (size_t)m * l->inputs;
#if defined(__AVX512F__)
      if (path == 2) {
        switch (block) {
          case 1: wide_avx512(l, 1, x, o, out_stride, first, last); break;
          case 2: wide_avx512(l, 2, x, o, out_stride, first, last); break;
          case 3: wide_avx512(l, 3, x, o, out_stride, first, last); break;
          default: wide_avx512(l, 4, x, o, out_stride, first, last);
        }
        continue;
      }
#endif
      wide_plain(l, block, x, o, out_stride, first, last);
      continue;
    }
    const int8_t *c = in->codes + (size_t)m * 2 * l->inputs;
    const float *s = in->scales + (size_t)m * groups;
    const int32_t *u = in->sums + (size_t)m * 2 * groups;
    for (const Linear *part = l; part; part = part->fine) {
      narrow_tiles(part, block, c, s, u, part != l, o, out_stride, first, last, path);
      u += groups; /* what meets the int4 part is codes[0] alone */
    }
  }
}

/* out[m][tile * 64 ...] for tiles first..last of all tokens. Many tokens take one tile after the other, so
   that its weights come from memory once and from the core's own cache for all blocks but the first. */
static void run_tiles(const Linear *l, int count, const Input *in, float *out, int out_stride, int first,
                      int last) {
  if (count <= MAX_BLOCK) {
    run_blocks(l, count, in, out, out_stride, first, last);
    return;
  }
  for (int tile = first; tile < last; tile++) run_blocks(l, count, in, out, out_stride, tile, tile + 1);
}

/* y [count][rows] = x [count][inputs] times the weights, plus bias [rows] if there is one. False when
   memory runs out. */
int sonant_linear_run(const Linear *l, int count, const float *x, const float *bias, float *y, int threads) {
  const int groups = l->inputs / l->group;
  Input in = {(float *)x, NULL, NULL, NULL};
  if (l->bits != 16) {
    in.codes = malloc((size_t)2 * count * l->inputs);
    in.scales = malloc(sizeof(float) * count * groups);
    in.sums = malloc(sizeof(int32_t) * 2 * count * groups);
    if (!in.codes || !in.scales || !in.sums) { free(in.codes); free(in.scales); free(in.sums); return 0; }
    for (int m = 0; m < count; m++) put(l, &in, m, x + (size_t)m * l->inputs);
  }
#pragma omp parallel num_threads(threads)
  {
    int t = omp_get_thread_num(), n = omp_get_num_threads(), tiles = l->rows / TILE;
    int first = tiles * t / n, last = tiles * (t + 1) / n;
    run_tiles(l, count, &in, y, l->rows, first, last);
    if (bias)
      for (int m = 0; m < count; m++)
        for (int i = first * TILE; i < last * TILE; i++) y[(size_t)m * l->rows + i] += bias[i];
  }
  free(in.codes); free(in.scales); free(in.sums);
  return 1;
}

Stack *sonant_stack_new(int layers, int width, int heads, int kv_heads, int head_dim, int intermediate,
                        float eps, float theta, int max_tokens) {
  Stack *st = calloc(1, sizeof *st);
  if (!st) return NULL;
  st->layers = layers; st->width = width; st->heads = heads; st->kv_heads = kv_heads;
  st->head_dim = head_dim; st->intermediate = intermediate; st->eps = eps; st->theta = theta;
  st->max_tokens = max_tokens;
  int inner = heads * head_dim, qkv = inner + 2 * kv_heads * head_dim;
  int widest = 2 * intermediate > qkv ? 2 * intermediate : qkv;
  int input = inner > intermediate ? inner : intermediate;
  if (width > input) input = width;
  if (width > widest) widest = width;
  st->layer = calloc(layers, sizeof *st->layer);
  st->x = malloc(sizeof(float) * max_tokens * width);
  st->wide = malloc(sizeof(float) * max_tokens * widest);
  st->attended = malloc(sizeof(float) * max_tokens * inner);
  st->active = malloc(sizeof(float) * max_tokens * intermediate);
  st->input = malloc(sizeof *st->input);
  st->input->x = malloc(sizeof(float) * max_tokens * input);
  st->input->codes = malloc((size_t)2 * max_tokens * input);
  st->input->scales = malloc(sizeof(float) * max_tokens * (input / 32));
  st->input->sums = malloc(sizeof(int32_t) * 2 * max_tokens * (input / 32));
  return st;
}

void sonant_stack_free(Stack *st) {
  if (!st) return;
  free(st->layer); free(st->x); free(st->wide); free(st->attended); free(st->active);
  free(st->input->x); free(st->input->codes); free(st->input->scales); free(st->input->sums);
  free(st->input); free(st);
}

/* gate_up holds gate and up rows interleaved by tiles of 64. Pointers stay the caller's. */
void sonant_stack_layer(Stack *st, int index, Linear *qkv, Linear *out, Linear *gate_up, Linear *down,
                        const float *input_norm, const float *post_norm, const float *query_norm,
                        const float *key_norm, const float *qkv_bias) {
  st->layer[index] = (Layer){qkv, out, gate_up, down, input_norm, post_norm, query_norm, key_norm, qkv_bias};
}

void sonant_stack_norm(Stack *st, const float *final_norm) { st->final_norm = final_norm; }

static void rms_norm(const float *x, const float *weight, float *y, int n, float eps) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int i = 0; i < n; i++) sum += x[i] * x[i];
  float r = 1 / sqrtf(sum / n + eps);
  for (int i = 0; i < n; i++) y[i] = x[i] * r * weight[i];
}

/* e^x for x <= 88, relative error below 2e-7: 2^n times a polynomial; vectorises, unlike expf. */
static inline float fast_exp(float x) {
  x = x < -87.0f ? -87.0f : x;
  float n = rintf(x * 1.44269504f);
  float r = x - n * 0.693359375f + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  int32_t bits = ((int32_t)n + 127) << 23;
  float two;
  memcpy(&two, &bits, 4);
  return p * two;
}


/* All threads meet here. OpenMP's own barrier spins for milliseconds, which on a busy machine keeps the
   thread that is waited for from running; this one soon gives its processor away. */
static void meet(Barrier *b, int threads) {
  if (threads == 1) return;
  const int round = __atomic_load_n(&b->round, __ATOMIC_ACQUIRE);
  if (__atomic_add_fetch(&b->arrived, 1, __ATOMIC_ACQ_REL) == threads) {
    __atomic_store_n(&b->arrived, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&b->round, round + 1, __ATOMIC_RELEASE);
    return;
  }
  for (int turn = 0; __atomic_load_n(&b->round, __ATOMIC_ACQUIRE) == round; turn++) {
    if (turn < 4000) {
#if defined(__x86_64__) || defined(__i386__)
      __builtin_ia32_pause();
#endif
    } else {
      sched_yield();
    }
  }
}

/* What a phase needs of all tokens is split over threads by token when there are many. */
#define EACH_TOKEN for (int m = t; m < count; m += n)

/* A cache that the caller owns: keys[l], values[l] are [slots][kv_heads][capacity][head_dim]; cosines and
   sines are [capacity][head_dim / 2]. */
typedef struct {
  float *const *keys, *const *values;
  int capacity;
  const float *cosines, *sines;
} Cache;

/* Softmax weights of far-off positions are next to nothing, and their products with values are subnormal
   numbers, on which x86 takes a hundred times as long. They count as zero until `allow_subnormals`. */
static unsigned flush_subnormals(void) {
#if defined(__SSE2__)
  unsigned before = _mm_getcsr();
  _mm_setcsr(before | 0x8040);
  return before;
#else
  return 0;
#endif
}

static void allow_subnormals(unsigned before) {
#if defined(__SSE2__)
  _mm_setcsr(before);
#else
  (void)before;
#endif
}

/* What thread t of n does for the `count` tokens in st->x; token m is position positions[m] of cache row
   rows[m]. hidden [count][width] gets the output of the final norm, complete after the next `meet`. */
static void run_layers(Stack *st, int t, int n, int count, const int32_t *rows, const int32_t *positions,
                       const Cache *cache, float *hidden) {
  float *const *keys = cache->keys, *const *values = cache->values;
  const float *cosines = cache->cosines, *sines = cache->sines;
  const int capacity = cache->capacity;
  const int width = st->width, dim = st->head_dim, heads = st->heads, kv = st->kv_heads;
  const int inner = heads * dim, qkv_width = inner + 2 * kv * dim, middle = st->intermediate;
  const int share = heads / kv, half = dim / 2;
  int longest = 0;
  for (int m = 0; m < count; m++) longest = positions[m] + 1 > longest ? positions[m] + 1 : longest;
  const unsigned mode = flush_subnormals();
  float *normed = malloc(sizeof(float) * width);
  float *weights = malloc(sizeof(float) * (longest + 16) * share);
  for (int index = 0; index < st->layers; index++) {
    const Layer *l = &st->layer[index];
    EACH_TOKEN {
      rms_norm(st->x + (size_t)m * width, l->input_norm, normed, width, st->eps);
      put(l->qkv, st->input, m, normed);
    }
    meet(&st->barrier, n);
    run_tiles(l->qkv, count, st->input, st->wide, qkv_width, qkv_width / TILE * t / n,
              qkv_width / TILE * (t + 1) / n);
    meet(&st->barrier, n);
    for (int unit = t; unit < count * kv; unit += n) { /* keys and values of one token and kv head */
      int m = unit / kv, g = unit % kv;
      float *k = st->wide + (size_t)m * qkv_width + inner + g * dim, *v = k + kv * dim;
      if (l->qkv_bias)
        for (int i = 0; i < dim; i++) {
          k[i] += l->qkv_bias[inner + g * dim + i];
          v[i] += l->qkv_bias[inner + (kv + g) * dim + i];
        }
      if (l->key_norm) rms_norm(k, l->key_norm, k, dim, st->eps);
      size_t place = (((size_t)rows[m] * kv + g) * capacity + positions[m]) * dim;
      float *to = keys[index] + place;
      const float *c = cosines + (size_t)positions[m] * half, *s = sines + (size_t)positions[m] * half;
      for (int i = 0; i < half; i++) {
        to[i] = k[i] * c[i] - k[i + half] * s[i];
        to[i + half] = k[i + half] * c[i] + k[i] * s[i];
      }
      memcpy(values[index] + place, v, sizeof(float) * dim);
    }
    meet(&st->barrier, n);
    for (int unit = t; unit < count * kv; unit += n) {
      int m = unit / kv, g = unit % kv, length = positions[m] + 1;
      const float *kc = keys[index] + ((size_t)rows[m] * kv + g) * capacity * dim;
      const float *vc = values[index] + ((size_t)rows[m] * kv + g) * capacity * dim;
      const float *c = cosines + (size_t)positions[m] * half, *s = sines + (size_t)positions[m] * half;
      float scale = 1 / sqrtf((float)dim);
      for (int h = 0; h < share; h++) {
        float *q = st->wide + (size_t)m * qkv_width + (g * share + h) * dim;
        if (l->qkv_bias)
          for (int i = 0; i < dim; i++) q[i] += l->qkv_bias[(g * share + h) * dim + i];
        if (l->query_norm) rms_norm(q, l->query_norm, q, dim, st->eps);
        for (int i = 0; i < half; i++) {
          float a = q[i], b = q[i + half];
          q[i] = a * c[i] - b * s[i];
          q[i + half] = b * c[i] + a * s[i];
        }
        float *w = weights + (size_t)h * (longest + 16), peak = -INFINITY, sum = 0;
        for (int j = 0; j < length; j++) {
          const float *key = kc + (size_t)j * dim;
          float dot = 0;
#pragma omp simd reduction(+ : dot)
          for (int i = 0; i < dim; i++) dot += q[i] * key[i];
          w[j] = dot * scale;
          peak = w[j] > peak ? w[j] : peak;
        }
#pragma omp simd reduction(+ : sum)
        for (int j = 0; j < length; j++) { w[j] = fast_exp(w[j] - peak); sum += w[j]; }
        float *to = st->attended + (size_t)m * inner + (g * share + h) * dim, inverse = 1 / sum;
        for (int i = 0; i < dim; i++) to[i] = 0;
        for (int j = 0; j < length; j++) {
          float by = w[j];
          const float *value = vc + (size_t)j * dim;
          for (int i = 0; i < dim; i++) to[i] += by * value[i];
        }
        for (int i = 0; i < dim; i++) to[i] *= inverse;
      }
    }
    meet(&st->barrier, n);
    EACH_TOKEN put(l->out, st->input, m, st->attended + (size_t)m * inner);
    meet(&st->barrier, n);
    {
      int first = width / TILE * t / n, last = width / TILE * (t + 1) / n;
      run_tiles(l->out, count, st->input, st->wide, width, first, last);
      for (int m = 0; m < count; m++)
        for (int i = first * TILE; i < last * TILE; i++) st->x[(size_t)m * width + i] += st->wide[(size_t)m * width + i];
    }
    meet(&st->barrier, n);
    EACH_TOKEN {
      rms_norm(st->x + (size_t)m * width, l->post_norm, normed, width, st->eps);
      put(l->gate_up, st->input, m, normed);
    }
    meet(&st->barrier, n);
    {
      int pairs = middle / TILE, first = pairs * t / n, last = pairs * (t + 1) / n;
      run_tiles(l->gate_up, count, st->input, st->wide, 2 * middle, 2 * first, 2 * last);
      for (int m = 0; m < count; m++)
        for (int b = first; b < last; b++) {
          const float *gate = st->wide + (size_t)m * 2 * middle + (size_t)b * 2 * TILE, *up = gate + TILE;
          float *to = st->active + (size_t)m * middle + (size_t)b * TILE;
#pragma omp simd
          for (int i = 0; i < TILE; i++) to[i] = gate[i] / (1 + fast_exp(-gate[i])) * up[i];
        }
    }
    meet(&st->barrier, n);
    EACH_TOKEN put(l->down, st->input, m, st->active + (size_t)m * middle);
    meet(&st->barrier, n);
    {
      int first = width / TILE * t / n, last = width / TILE * (t + 1) / n;
      run_tiles(l->down, count, st->input, st->wide, width, first, last);
      for (int m = 0; m < count; m++)
        for (int i = first * TILE; i < last * TILE; i++) st->x[(size_t)m * width + i] += st->wide[(size_t)m * width + i];
    }
    meet(&st->barrier, n);
  }
  EACH_TOKEN rms_norm(st->x + (size_t)m * width, st->final_norm, hidden + (size_t)m * width, width, st->eps);
  free(normed);
  free(weights);
  allow_subnormals(mode);
}

/* Run tokens x [count][width] through all layers. */
void sonant_stack_run(Stack *st, int count, const float *x, const int32_t *rows, const int32_t *positions,
                      float *const *keys, float *const *values, int capacity, const float *cosines,
                      const float *sines, float *hidden, int threads) {
  const Cache cache = {keys, values, capacity, cosines, sines};
  memcpy(st->x, x, sizeof(float) * count * st->width);
#pragma omp parallel num_threads(threads)
  run_layers(st, omp_get_thread_num(), omp_get_num_threads(), count, rows, positions, &cache, hidden);
}

/* The k-th largest of n values, which are moved about. */
static float kth_largest(float *values, int n, int k) {
  int low = 0, high = n - 1, wanted = k - 1;
  while (low < high) {
    float pivot = values[(low + high) / 2];
    int i = low, j = high;
    while (i <= j) {
      while (values[i] > pivot) i++;
      while (values[j] < pivot) j--;
      if (i <= j) {
        float kept = values[i];
        values[i++] = values[j];
        values[j--] = kept;
      }
    }
    if (wanted <= j) high = j;
    else if (wanted >= i) low = i;
    else break;
  }
  return values[wanted];
}

/* A token from scores [n]: the largest, or the winner of an exponential race among the top k (0: all). */
static int pick(const float *scores, int n, int is_greedy, float temperature, int top_k, const float *race,
                float *scratch) {
  int best = 0;
  if (is_greedy) {
    for (int i = 1; i < n; i++) best = scores[i] > scores[best] ? i : best;
    return best;
  }
  float peak = scores[0], least = -INFINITY, most = -1;
  for (int i = 0; i < n; i++) peak = scores[i] > peak ? scores[i] : peak;
  for (int i = 0; i < n; i++)
    if (scores[i] != scores[i]) return 0; /* not a number: nothing to choose from */
  if (top_k > 0 && top_k < n) {
    memcpy(scratch, scores, sizeof(float) * n);
    least = kth_largest(scratch, n, top_k);
  }
  for (int i = 0; i < n; i++)
    if (scores[i] >= least) {
      float value = expf((scores[i] - peak) / temperature) / race[i];
      if (value > most) { most = value; best = i; }
    }
  return best;
}

/* How each row of a batch chooses its tokens; race [groups][batch][vocabulary] holds exponential draws. */
typedef struct {
  const int32_t *greedy, *top_k;
  const float *temperature, *race;
} Choice;

/* All other tokens of one frame for `batch` rows: hidden, first [batch][source] are the two positions that
   begin each row, tables[g] [vocabulary][source] embeds token g, heads[g] scores it. tokens [batch][groups];
   total [batch][source] is the sum of the tokens' embeddings. project (with its bias) leads from source to
   the stack's width; NULL when they are the same. From token late_from on `late` takes the place of the stack, with
   other weights for the same sizes, unless it is NULL. False when memory runs out. */
int sonant_frame_run(Stack *early, Stack *late, int late_from, int batch, int groups, int source, int vocabulary, const float *hidden,
                     const float *first, const Linear *project, const float *project_bias,
                     Linear *const *heads, const float *const *tables, float *const *keys,
                     float *const *values, int capacity, const float *cosines, const float *sines,
                     const int32_t *greedy, const int32_t *top_k, const float *temperature, const float *race,
                     int64_t *tokens, float *total, int threads) {
  const Cache cache = {keys, values, capacity, cosines, sines};
  const Choice choice = {greedy, top_k, temperature, race};
  const int width = early->width, scored = heads[0]->rows, most = 2 * batch;
  const int parts = project ? source / project->group : 1;
  float *x = malloc(sizeof(float) * most * source), *out = malloc(sizeof(float) * most * width);
  float *scores = malloc(sizeof(float) * batch * scored), *scratch = malloc(sizeof(float) * batch * vocabulary);
  int32_t *rows = malloc(sizeof(int32_t) * most), *positions = malloc(sizeof(int32_t) * most);
  Input in = {malloc(sizeof(float) * most * source), malloc((size_t)2 * most * source),
              malloc(sizeof(float) * most * parts), malloc(sizeof(int32_t) * 2 * most * parts)};
  int fits = x && out && scores && scratch && rows && positions && in.x && in.codes && in.scales && in.sums;
  for (int b = 0; fits && b < batch; b++) {
    memcpy(x + (size_t)(2 * b) * source, hidden + (size_t)b * source, sizeof(float) * source);
    memcpy(x + (size_t)(2 * b + 1) * source, first + (size_t)b * source, sizeof(float) * source);
    for (int i = 0; i < 2; i++) { rows[2 * b + i] = b; positions[2 * b + i] = i; }
    memset(total + (size_t)b * source, 0, sizeof(float) * source);
  }
  if (fits) {
#pragma omp parallel num_threads(threads)
    {
      const int t = omp_get_thread_num(), n = omp_get_num_threads();
      for (int g = 0; g < groups; g++) {
        const int count = g ? batch : 2 * batch;
        Stack *st = late && g >= late_from ? late : early;
        if (project) {
          EACH_TOKEN put(project, &in, m, x + (size_t)m * source);
          meet(&st->barrier, n);
          int from = width / TILE * t / n, to = width / TILE * (t + 1) / n;
          run_tiles(project, count, &in, st->x, width, from, to);
          if (project_bias)
            for (int m = 0; m < count; m++)
              for (int i = from * TILE; i < to * TILE; i++) st->x[(size_t)m * width + i] += project_bias[i];
        } else {
          EACH_TOKEN memcpy(st->x + (size_t)m * width, x + (size_t)m * width, sizeof(float) * width);
        }
        meet(&st->barrier, n);
        run_layers(st, t, n, count, rows, positions, &cache, out);
        meet(&st->barrier, n);
        for (int b = t; b < batch; b += n) put(heads[g], st->input, b, out + (size_t)(g ? b : 2 * b + 1) * width);
        meet(&st->barrier, n);
        run_tiles(heads[g], batch, st->input, scores, scored, scored / TILE * t / n, scored / TILE * (t + 1) / n);
        meet(&st->barrier, n);
        for (int b = t; b < batch; b += n) {
          int token = pick(scores + (size_t)b * scored, vocabulary, choice.greedy[b], choice.temperature[b],
                           choice.top_k[b], choice.race + ((size_t)g * batch + b) * vocabulary,
                           scratch + (size_t)b * vocabulary);
          const float *embedding = tables[g] + (size_t)token * source;
          tokens[(size_t)b * groups + g] = token;
          memcpy(x + (size_t)b * source, embedding, sizeof(float) * source);
          for (int i = 0; i < source; i++) total[(size_t)b * source + i] += embedding[i];
        }
        meet(&st->barrier, n);
        if (t == 0)
          for (int b = 0; b < batch; b++) { rows[b] = b; positions[b] = g + 2; }
        meet(&st->barrier, n);
      }
    }
  }
  free(x); free(out); free(scores); free(scratch); free(rows); free(positions);
  free(in.x); free(in.codes); free(in.scales); free(in.sums);
  return fits;
}
