/* Weights into tiles, and activations into codes: the numbers that products.c multiplies. */
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include "linear.h"
#if defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
#endif

size_t sonant_weight_bytes(int rows, int inputs, int bits) { return (size_t)rows * inputs * bits / 8; }
size_t sonant_scale_count(int rows, int inputs, int bits, int group) {
  return bits == 16 ? 0 : (size_t)rows * (inputs / group);
}

/* rows must be a multiple of 64; inputs of group and group, at most 128, of 32 unless bits is 16. planes of int8,
   1 or 2, hold an activation. NULL when memory runs out, or for other sizes. */
Linear *sonant_linear_new(int rows, int inputs, int bits, int group, int planes) {
  if (rows < 1 || rows % TILE || inputs < 1 || group < 1 || group > 128 || inputs % group || planes < 1 || planes > 2 ||
      (bits != 16 && (group % 32 || (bits != 4 && bits != 8 && bits != 12))))
    return NULL;
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

/* A scale as bfloat16, away from zero so that no weight is cut off. */
static uint16_t narrow_scale(float scale) {
  uint32_t bits;
  memcpy(&bits, &scale, 4);
  return (uint16_t)((bits + 0xffff) >> 16);
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

int sonant_linear_pack(Linear *l, const float *weights) {
  if (l->bits == 16) { pack_bfloat16(l, weights); return DONE; }
  const int groups = l->inputs / l->group, inputs = l->inputs;
  const size_t tile_bytes = sonant_weight_bytes(TILE, inputs, l->bits), fine_bytes = sonant_weight_bytes(TILE, inputs, 4);
  const int threads = omp_get_max_threads();
  uint8_t *rows = malloc((size_t)2 * inputs * threads); /* of each thread one row of codes, before it is spread */
  if (!rows) return NO_MEMORY;
#pragma omp parallel num_threads(threads)
  {
    uint8_t *row = rows + (size_t)2 * inputs * omp_get_thread_num(), *rest = row + inputs;
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
  }
  free(rows);
  return DONE;
}

/* Rounded to an integer; what is no number is 0. */
static inline int whole(float v) { return v == v ? (int)rintf(v) : 0; }

#if defined(__AVX2__) && defined(__FMA__)
/* As `whole`. */
static inline __m256i whole_avx2(__m256 v) {
  return _mm256_cvtps_epi32(_mm256_and_ps(v, _mm256_cmp_ps(v, v, _CMP_ORD_Q)));
}

/* A group as codes of 16 bits, four inputs as 0, 2, 1, 3, the sum of the codes and that of their first planes. */
static inline void put_avx2(const float *x, int group, float inverse, int16_t *codes, int32_t *sum, int32_t *first) {
  const __m256i order = _mm256_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15, 0, 1, 4, 5, 2, 3, 6, 7, 8,
                                         9, 12, 13, 10, 11, 14, 15);
  const __m256 by = _mm256_set1_ps(inverse);
  const __m256i half = _mm256_set1_epi16(128), one = _mm256_set1_epi16(1);
  __m256i sums = _mm256_setzero_si256(), firsts = sums;
  for (int i = 0; i < group; i += 16) {
    const __m256i a = whole_avx2(_mm256_mul_ps(_mm256_loadu_ps(x + i), by));
    const __m256i b = whole_avx2(_mm256_mul_ps(_mm256_loadu_ps(x + i + 8), by));
    const __m256i q = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8);
    sums = _mm256_add_epi32(sums, _mm256_madd_epi16(q, one));
    firsts = _mm256_add_epi32(firsts, _mm256_madd_epi16(_mm256_srai_epi16(_mm256_add_epi16(q, half), 8), one));
    _mm256_storeu_si256((__m256i *)(codes + i), _mm256_shuffle_epi8(q, order));
  }
  int32_t lanes[2][8];
  _mm256_storeu_si256((__m256i *)lanes[0], sums);
  _mm256_storeu_si256((__m256i *)lanes[1], firsts);
  *sum = *first = 0;
  for (int i = 0; i < 8; i++) {
    *sum += lanes[0][i];
    *first += lanes[1][i];
  }
}
#endif

/* Activations [inputs] -> codes [2][inputs], a scale for each group, and sums [2][groups]: of the codes, and of codes[0].
   With two planes a code has 16 bits, and is 256 * codes[0] + codes[1]; with one it has 8. */
static void quantise(const float *x, int inputs, int group, int planes, int8_t *codes, float *scales, int32_t *sums) {
  for (int g = 0; g < inputs / group; g++) {
    const float *part = x + (size_t)g * group;
    int8_t *high = codes + (size_t)g * group, *low = high + inputs;
    float peak = 0;
    for (int i = 0; i < group; i++) { float a = fabsf(part[i]); peak = a > peak ? a : peak; }
    float scale = peak * (planes == 2 ? 1.0f / (127 * 256) : 1.0f / 127), inverse = (planes == 2 ? 127 * 256 : 127) / peak;
    if (scale < 1e-30f) scale = 1e-30f, inverse = 1e30f;
    int32_t sum = 0, first = 0;
#if defined(__AVX2__) && defined(__FMA__)
    if (sonant_path() == 1) {
      put_avx2(part, group, inverse, (int16_t *)codes + (size_t)g * group, &sum, &first);
      scales[g] = scale;
      sums[g] = sum;
      sums[inputs / group + g] = planes == 2 ? first : sum;
      continue;
    }
#endif
    if (planes == 2)
      for (int i = 0; i < group; i++) {
        int q = whole(part[i] * inverse), l = (int8_t)q;
        low[i] = (int8_t)l;
        high[i] = (int8_t)((q - l) / 256);
        sum += q;
        first += (q - l) / 256;
      }
    else
      for (int i = 0; i < group; i++) {
        int q = whole(part[i] * inverse);
        high[i] = (int8_t)q;
        sum += q;
      }
    scales[g] = scale;
    sums[g] = sum;
    sums[inputs / group + g] = planes == 2 ? first : sum;
  }
}

int sonant_input_fill(Input *in, int tokens, int inputs) {
  const size_t values = (size_t)tokens * inputs, groups = (size_t)tokens * ((inputs + 31) / 32);
  *in = (Input){malloc(sizeof(float) * values), malloc(2 * values), malloc(sizeof(float) * groups),
                malloc(sizeof(int32_t) * 2 * groups)};
  return in->x && in->codes && in->scales && in->sums;
}

void sonant_input_drop(Input *in) { free(in->x); free(in->codes); free(in->scales); free(in->sums); }

void sonant_put(const Linear *l, const Input *in, int m, const float *x) {
  const int groups = l->inputs / l->group;
  if (l->bits == 16)
    memcpy(in->x + (size_t)m * l->inputs, x, sizeof(float) * l->inputs);
  else
    quantise(x, l->inputs, l->group, l->planes, in->codes + (size_t)m * 2 * l->inputs, in->scales + (size_t)m * groups,
             in->sums + (size_t)m * 2 * groups);
}
