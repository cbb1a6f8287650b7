/* Products of many tokens in fixed point: weights of 13 bits, activations of 14, exact sums of 64 of their products in
   int32, and float32 sums of those. Plain C and AVX2, whose instruction for pairs of int16 makes twice the products of
   float32 in the same time.

   Both are quantised by groups of 64 inputs with a float32 scale each, activations on the fly. That is what an int32 holds:
   64 * 4095 * 8191 is just below 2^31. A product of rows loses some 0.015 % (int8 weights: 0.4 %, bfloat16: 0.25 %).

   A convolution of stride 1 is a product of overlapping rows: its token m is the taps' inputs m, m + 1, ..., which lie one
   after the other and are quantised once. A linear layer is one of a single tap.

   Weight layout: tiles of 64 output rows, [tile][tap][group][4][32][16][2]: sixteen rows with two inputs side by side; scales
   [tile][tap][group][64]. What the last group of a tap and the last tile lack is zeros. */
#include <float.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include "linear.h"
#include "bands.h"

#define GROUP 64
#define MOST_WEIGHT 4095
#define MOST_CODE 8191
#if !defined(CHUNK)
#define CHUNK 96
#define BAND 6
#endif

typedef struct Fixed {
  int rows, width, taps, groups; /* groups of one tap */
  int16_t *weights;
  float *scales;
  Slab *slab;
} Fixed;

void sonant_fixed_free(Fixed *f) {
  if (f) { sonant_leave(f->slab); free(f); }
}

/* The largest magnitude of x [count]; NaN when one is NaN or infinite. */
static float peak_of(const float *x, int count) {
  float peak = 0;
  int is_number = 1;
  for (int i = 0; i < count; i++) {
    const float a = fabsf(x[i]);
    is_number &= a <= FLT_MAX;
    peak = a > peak ? a : peak;
  }
  return is_number ? peak : NAN;
}

/* Codes of up to 64 values, zeros behind them, and their scale: NaN when a value is no number or infinite. */
static float put_group(const float *x, int count, int most, int16_t *codes) {
  const float peak = peak_of(x, count), inverse = peak > 1e-30f ? (float)most / peak : 0;
  for (int i = 0; i < GROUP; i++) codes[i] = 0;
  for (int i = 0; i < count && inverse > 0; i++) codes[i] = (int16_t)(int)rintf(x[i] * inverse);
  return peak * (1 / (float)most);
}

/* weights [rows][taps][width]; NULL when memory runs out, or for sizes below one. */
Fixed *sonant_fixed_new(int rows, int width, int taps, const float *weights) {
  if (rows < 1 || width < 1 || taps < 1) return NULL;
  Fixed *f = calloc(1, sizeof *f);
  if (!f) return NULL;
  const int groups = (width + GROUP - 1) / GROUP, tiles = (rows + TILE - 1) / TILE;
  *f = (Fixed){rows, width, taps, groups, NULL, NULL, NULL};
  const size_t scales = (size_t)tiles * taps * groups * TILE;
  f->weights = sonant_take(scales * (GROUP * sizeof(int16_t) + sizeof(float)), &f->slab);
  if (!f->weights) { free(f); return NULL; }
  f->scales = (float *)(f->weights + scales * GROUP);
#pragma omp parallel for schedule(static)
  for (int row = 0; row < tiles * TILE; row++)
    for (int g = 0; g < taps * groups; g++) {
      const int at = g % groups * GROUP, left = width - at, j = row % TILE;
      const size_t place = (size_t)(row / TILE) * taps * groups + g;
      const int count = row >= rows ? 0 : left < GROUP ? left : GROUP;
      const float *from = count ? weights + ((size_t)row * taps + g / groups) * width + at : weights;
      int16_t codes[GROUP];
      f->scales[place * TILE + j] = put_group(from, count, MOST_WEIGHT, codes);
      int16_t *to = f->weights + place * TILE * GROUP + j / 16 * 16 * GROUP + j % 16 * 2;
      for (int i = 0; i < GROUP; i += 2) {
        to[i * 16] = codes[i];
        to[i * 16 + 1] = codes[i + 1];
      }
    }
  return f;
}

/* sums [count][64] of one tile; tokens lie `stride` codes and `scale_stride` scales apart. */
static void tile_plain(const Fixed *f, int tile, int count, const int16_t *codes, const float *scales, float *sums) {
  for (int g = 0; g < f->taps * f->groups; g++) {
    const size_t place = (size_t)tile * f->taps * f->groups + g;
    const int16_t *w = f->weights + place * TILE * GROUP;
    const float *s = f->scales + place * TILE;
    for (int m = 0; m < count; m++) {
      const int16_t *a = codes + ((size_t)m * f->groups + g) * GROUP;
      const float by = scales[(size_t)m * f->groups + g];
      for (int part = 0; part < 4; part++) {
        int32_t acc[16] = {0};
        for (int k = 0; k < GROUP; k += 2)
          for (int j = 0; j < 16; j++) {
            const int16_t *pair = w + (part * GROUP + k) * 16 + j * 2;
            acc[j] += pair[0] * a[k] + pair[1] * a[k + 1];
          }
        float *to = sums + m * TILE + part * 16;
        for (int j = 0; j < 16; j++) to[j] += (float)acc[j] * (s[part * 16 + j] * by);
      }
    }
  }
}

#if defined(__AVX2__) && defined(__FMA__)
/* As `put_group`, of a whole group. */
static float put_avx2(const float *x, int16_t *codes) {
  const __m256 sign = _mm256_set1_ps(-0.0f), largest = _mm256_set1_ps(FLT_MAX);
  __m256 most = _mm256_setzero_ps(), numbers = _mm256_cmp_ps(most, most, _CMP_EQ_OQ);
  for (int i = 0; i < GROUP; i += 8) {
    const __m256 v = _mm256_loadu_ps(x + i);
    most = _mm256_max_ps(most, _mm256_andnot_ps(sign, v));
    numbers = _mm256_and_ps(numbers, _mm256_cmp_ps(_mm256_andnot_ps(sign, v), largest, _CMP_LE_OQ));
  }
  float lanes[8], peak = 0;
  _mm256_storeu_ps(lanes, most);
  for (int i = 0; i < 8; i++) peak = lanes[i] > peak ? lanes[i] : peak;
  if (_mm256_movemask_ps(numbers) != 255) peak = NAN;
  const __m256 inverse = _mm256_set1_ps(peak > 1e-30f ? (float)MOST_CODE / peak : 0);
  for (int i = 0; i < GROUP; i += 16) {
    const __m256i a = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i), inverse));
    const __m256i b = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i + 8), inverse));
    _mm256_storeu_si256((__m256i *)(codes + i), _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8));
  }
  return peak * (1 / (float)MOST_CODE);
}

static void tile_avx2(const Fixed *f, int tile, int count, const int16_t *codes, const float *scales, float *sums) {
  for (int g = 0; g < f->taps * f->groups; g++) {
    const size_t place = (size_t)tile * f->taps * f->groups + g, stride = (size_t)f->groups * GROUP;
    const int16_t *w = f->weights + place * TILE * GROUP;
    const float *s = f->scales + place * TILE;
    for (int m = 0; m < count; m += BAND)
      for (int part = 0; part < 4; part++)
        band_avx2(count - m - 1, w + part * 16 * GROUP, codes + m * stride + g * GROUP, stride, GROUP,
                  _mm256_loadu_ps(s + part * 16), _mm256_loadu_ps(s + part * 16 + 8), scales + (size_t)m * f->groups + g,
                  f->groups, 1, sums + m * TILE + part * 16);
  }
}
#endif

/* y [count][rows] of x [count + taps - 1][width], plus bias [rows] if there is one. A token's are the same to the bit in
   any company and for any number of threads. */
int sonant_fixed_run(const Fixed *f, int count, const float *x, const float *bias, float *y, int threads) {
  if (count < 1 || threads < 1) return WRONG_SIZE;
  const int places = count + f->taps - 1, groups = f->groups;
  int16_t *codes = malloc(sizeof(int16_t) * GROUP * places * groups);
  float *scales = malloc(sizeof(float) * places * groups);
  if (!codes || !scales) { free(codes); free(scales); return NO_MEMORY; }
#pragma omp parallel num_threads(threads)
  {
#pragma omp for schedule(static)
    for (int p = 0; p < places; p++)
      for (int g = 0; g < groups; g++) {
        const float *from = x + (size_t)p * f->width + g * GROUP;
        const int left = f->width - g * GROUP;
        const size_t at = (size_t)p * groups + g;
#if defined(__AVX2__) && defined(__FMA__)
        if (sonant_path() && left >= GROUP) { scales[at] = put_avx2(from, codes + at * GROUP); continue; }
#endif
        scales[at] = put_group(from, left < GROUP ? left : GROUP, MOST_CODE, codes + at * GROUP);
      }
    /* Threads share tiles of chunks of tokens, so that eight tiles keep sixteen threads busy; chunks are about as large. */
    const int t = omp_get_thread_num(), n = omp_get_num_threads(), tiles = (f->rows + TILE - 1) / TILE;
    const int chunks = (count + CHUNK - 1) / CHUNK, each = ((count + chunks - 1) / chunks + BAND - 1) / BAND * BAND;
    const long units = (long)tiles * chunks;
    __attribute__((aligned(64))) float sums[CHUNK * TILE];
    for (long unit = units * t / n; unit < units * (t + 1) / n; unit++) {
      const int begin = (int)(unit / tiles) * each, tile = (int)(unit % tiles);
      const int some = count - begin < each ? count - begin : each;
      const int wide = f->rows - tile * TILE < TILE ? f->rows - tile * TILE : TILE;
      const int16_t *a = codes + (size_t)begin * groups * GROUP;
      const float *s = scales + (size_t)begin * groups;
      memset(sums, 0, sizeof sums);
#if defined(__AVX2__) && defined(__FMA__)
      if (sonant_path()) tile_avx2(f, tile, some, a, s, sums);
      else
#endif
        tile_plain(f, tile, some, a, s, sums);
      for (int m = 0; m < some; m++) {
        float *to = y + (size_t)(begin + m) * f->rows + tile * TILE;
        for (int j = 0; j < wide; j++) to[j] = sums[m * TILE + j] + (bias ? bias[tile * TILE + j] : 0);
      }
    }
  }
  free(codes); free(scales);
  return DONE;
}
