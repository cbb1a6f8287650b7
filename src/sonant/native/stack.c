/* Decoder stack of the Qwen kind for CPUs: one call runs M tokens through all layers. RMS norm, grouped-query
   attention over a float32 cache that the caller owns, rotary positions, SwiGLU. A test holds it to the float network. */
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include "stack.h"

void sonant_stack_free(Stack *st);

Stack *sonant_stack_new(int layers, int width, int heads, int kv_heads, int head_dim, int intermediate,
                        float eps, float theta, int max_tokens) {
  if (layers < 1 || width < 1 || heads < 1 || kv_heads < 1 || heads % kv_heads || head_dim < 2 || head_dim % 2 ||
      intermediate < 1 || max_tokens < 1)
    return NULL;
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
  st->input = calloc(1, sizeof *st->input);
  st->x = malloc(sizeof(float) * max_tokens * width);
  st->wide = malloc(sizeof(float) * max_tokens * widest);
  st->attended = malloc(sizeof(float) * max_tokens * inner);
  st->active = malloc(sizeof(float) * max_tokens * intermediate);
  int fits = st->layer && st->input && st->x && st->wide && st->attended && st->active;
  if (fits && sonant_input_fill(st->input, max_tokens, input)) return st;
  sonant_stack_free(st);
  return NULL;
}

void sonant_stack_free(Stack *st) {
  if (!st) return;
  free(st->layer); free(st->x); free(st->wide); free(st->attended); free(st->active);
  if (st->input) sonant_input_drop(st->input);
  free(st->input); free(st);
}

static int is_sized(const Linear *l, int rows, int inputs) { return l && l->rows == rows && l->inputs == inputs; }

/* gate_up holds gate and up rows interleaved by tiles of 64. Pointers stay the caller's. */
int sonant_stack_layer(Stack *st, int index, Linear *qkv, Linear *out, Linear *gate_up, Linear *down,
                        const float *input_norm, const float *post_norm, const float *query_norm,
                        const float *key_norm, const float *qkv_bias) {
  const int inner = st->heads * st->head_dim, kv = st->kv_heads * st->head_dim;
  if (index < 0 || index >= st->layers || !is_sized(qkv, inner + 2 * kv, st->width) ||
      !is_sized(out, st->width, inner) || !is_sized(gate_up, 2 * st->intermediate, st->width) ||
      !is_sized(down, st->width, st->intermediate))
    return WRONG_SIZE;
  st->layer[index] = (Layer){qkv, out, gate_up, down, input_norm, post_norm, query_norm, key_norm, qkv_bias};
  return DONE;
}

void sonant_stack_norm(Stack *st, const float *final_norm) { st->final_norm = final_norm; }

static void rms_norm(const float *x, const float *weight, float *y, int n, float eps) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int i = 0; i < n; i++) sum += x[i] * x[i];
  float r = 1 / sqrtf(sum / n + eps);
  for (int i = 0; i < n; i++) y[i] = x[i] * r * weight[i];
}

size_t sonant_layer_scratch(const Stack *st, int longest) {
  const size_t floats = st->width + (size_t)(longest + 16) * (st->heads / st->kv_heads);
  return (floats + 15) / 16 * 16; /* no cache line is two threads' */
}

void sonant_run_layers(Stack *st, int t, int n, int count, const int32_t *rows, const int32_t *positions,
                       const Cache *cache, float *hidden, float *scratch) {
  float *const *keys = cache->keys, *const *values = cache->values;
  const float *cosines = cache->cosines, *sines = cache->sines;
  const int capacity = cache->capacity;
  const int width = st->width, dim = st->head_dim, heads = st->heads, kv = st->kv_heads;
  const int inner = heads * dim, qkv_width = inner + 2 * kv * dim, middle = st->intermediate;
  const int share = heads / kv, half = dim / 2;
  int longest = 0;
  for (int m = 0; m < count; m++) longest = positions[m] + 1 > longest ? positions[m] + 1 : longest;
  const unsigned mode = flush_subnormals();
  float *normed = scratch, *weights = scratch + width;
  for (int index = 0; index < st->layers; index++) {
    const Layer *l = &st->layer[index];
    EACH_TOKEN {
      rms_norm(st->x + (size_t)m * width, l->input_norm, normed, width, st->eps);
      sonant_put(l->qkv, st->input, m, normed);
    }
    meet(&st->barrier, n);
    sonant_run_tiles(l->qkv, count, st->input, st->wide, qkv_width, qkv_width / TILE * t / n,
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
    EACH_TOKEN sonant_put(l->out, st->input, m, st->attended + (size_t)m * inner);
    meet(&st->barrier, n);
    {
      int first = width / TILE * t / n, last = width / TILE * (t + 1) / n;
      sonant_run_tiles(l->out, count, st->input, st->wide, width, first, last);
      for (int m = 0; m < count; m++)
        for (int i = first * TILE; i < last * TILE; i++) st->x[(size_t)m * width + i] += st->wide[(size_t)m * width + i];
    }
    meet(&st->barrier, n);
    EACH_TOKEN {
      rms_norm(st->x + (size_t)m * width, l->post_norm, normed, width, st->eps);
      sonant_put(l->gate_up, st->input, m, normed);
    }
    meet(&st->barrier, n);
    {
      int pairs = middle / TILE, first = pairs * t / n, last = pairs * (t + 1) / n;
      sonant_run_tiles(l->gate_up, count, st->input, st->wide, 2 * middle, 2 * first, 2 * last);
      for (int m = 0; m < count; m++)
        for (int b = first; b < last; b++) {
          const float *gate = st->wide + (size_t)m * 2 * middle + (size_t)b * 2 * TILE, *up = gate + TILE;
          float *to = st->active + (size_t)m * middle + (size_t)b * TILE;
#pragma omp simd
          for (int i = 0; i < TILE; i++) to[i] = gate[i] / (1 + fast_exp(-gate[i])) * up[i];
        }
    }
    meet(&st->barrier, n);
    EACH_TOKEN sonant_put(l->down, st->input, m, st->active + (size_t)m * middle);
    meet(&st->barrier, n);
    {
      int first = width / TILE * t / n, last = width / TILE * (t + 1) / n;
      sonant_run_tiles(l->down, count, st->input, st->wide, width, first, last);
      for (int m = 0; m < count; m++)
        for (int i = first * TILE; i < last * TILE; i++) st->x[(size_t)m * width + i] += st->wide[(size_t)m * width + i];
    }
    meet(&st->barrier, n);
  }
  EACH_TOKEN rms_norm(st->x + (size_t)m * width, st->final_norm, hidden + (size_t)m * width, width, st->eps);
  allow_subnormals(mode);
}

/* Run tokens x [count][width] through all layers. WRONG_SIZE for more tokens than the stack has room for, for rows and
   positions that the cache or the table of angles does not have, and for a stack that lacks a layer or its norm. */
int sonant_stack_run(Stack *st, int count, const float *x, const int32_t *rows, const int32_t *positions,
                     float *const *keys, float *const *values, int slots, int capacity, const float *cosines,
                     const float *sines, int angles, float *hidden, int threads) {
  int longest = 0;
  if (count < 1 || count > st->max_tokens || threads < 1 || !is_whole(st)) return WRONG_SIZE;
  for (int m = 0; m < count; m++) {
    if (rows[m] < 0 || rows[m] >= slots || positions[m] < 0 || positions[m] >= capacity || positions[m] >= angles)
      return WRONG_SIZE;
    longest = positions[m] + 1 > longest ? positions[m] + 1 : longest;
  }
  const size_t each = sonant_layer_scratch(st, longest);
  float *scratch = malloc(sizeof(float) * each * threads);
  if (!scratch) return NO_MEMORY;
  const Cache cache = {keys, values, slots, capacity, cosines, sines};
  memcpy(st->x, x, sizeof(float) * count * st->width);
#pragma omp parallel num_threads(threads)
  {
    const int t = omp_get_thread_num();
    sonant_run_layers(st, t, omp_get_num_threads(), count, rows, positions, &cache, hidden, scratch + each * t);
  }
  free(scratch);
  return DONE;
}
