/* Decoder stack of the GPT-2 kind for CPUs: one call takes one new position of several rows through all layers, the
   closing norms and the head. Layer norms, biases, GELU by tanh, no rotation. A test holds it to the float network. */
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include "stack.h"

enum { NORMS = 2 }; /* in series before the head */

typedef struct {
  const Linear *qkv, *out, *up, *down;
  const float *vectors[8]; /* weight and bias of both norms, then the biases of qkv, out, up and down */
} Gpt2Layer;

typedef struct {
  int layers, width, heads, middle, scored, max_rows;
  float eps;
  Gpt2Layer *layer;
  const float *norms[2 * NORMS], *head_bias;
  const Linear *head;
  float *x, *wide, *attended, *scores; /* scratch, [max_rows][...] */
  Input input;
  Barrier barrier;
} Gpt2;

void sonant_gpt2_free(Gpt2 *g) {
  if (!g) return;
  sonant_input_drop(&g->input);
  free(g->layer); free(g->x); free(g->wide); free(g->attended); free(g->scores); free(g);
}

/* head [scored, filled up to tiles][width] with its bias; norms are weight, bias, weight, bias. Pointers stay the
   caller's. NULL when memory runs out, or for sizes that tiles and heads do not divide. */
Gpt2 *sonant_gpt2_new(int layers, int width, int heads, int middle, int scored, float eps, int max_rows,
                      const float *const *norms, const Linear *head, const float *head_bias) {
  if (layers < 1 || heads < 1 || width < 1 || width % TILE || width % heads || middle < 1 || middle % TILE ||
      scored < 1 || max_rows < 1 || !head || head->inputs != width || head->rows < scored)
    return NULL;
  Gpt2 *g = calloc(1, sizeof *g);
  if (!g) return NULL;
  *g = (Gpt2){layers, width, heads, middle, scored, max_rows, eps, NULL, {norms[0], norms[1], norms[2], norms[3]},
              head_bias, head};
  const int widest = middle > 3 * width ? middle : 3 * width;
  g->layer = calloc(layers, sizeof *g->layer);
  g->x = malloc(sizeof(float) * max_rows * width);
  g->wide = malloc(sizeof(float) * max_rows * widest);
  g->attended = malloc(sizeof(float) * max_rows * width);
  g->scores = malloc(sizeof(float) * max_rows * head->rows);
  if (sonant_input_fill(&g->input, max_rows, middle > width ? middle : width) && g->layer && g->x && g->wide &&
      g->attended && g->scores)
    return g;
  sonant_gpt2_free(g);
  return NULL;
}

static int is_sized(const Linear *l, int rows, int inputs) { return l && l->rows == rows && l->inputs == inputs; }

/* vectors: weight and bias of both norms, then the biases of the four matrices. Pointers stay the caller's. */
int sonant_gpt2_layer(Gpt2 *g, int index, const Linear *qkv, const Linear *out, const Linear *up, const Linear *down,
                      const float *const *vectors) {
  if (index < 0 || index >= g->layers || !is_sized(qkv, 3 * g->width, g->width) || !is_sized(out, g->width, g->width) ||
      !is_sized(up, g->middle, g->width) || !is_sized(down, g->width, g->middle))
    return WRONG_SIZE;
  Gpt2Layer *l = &g->layer[index];
  *l = (Gpt2Layer){qkv, out, up, down, {NULL}};
  memcpy(l->vectors, vectors, sizeof l->vectors);
  return DONE;
}

static void layer_norm(const float *x, const float *weight, const float *bias, float *y, int n, float eps) {
  float sum = 0, square = 0;
#pragma omp simd reduction(+ : sum)
  for (int i = 0; i < n; i++) sum += x[i];
  const float mean = sum / n;
#pragma omp simd reduction(+ : square)
  for (int i = 0; i < n; i++) square += (x[i] - mean) * (x[i] - mean);
  const float r = 1 / sqrtf(square / n + eps);
  for (int i = 0; i < n; i++) y[i] = (x[i] - mean) * r * weight[i] + bias[i];
}

/* to [dim] = softmax(q K^T / sqrt(dim)) V over `length` positions; position j lies in row origins[j] of keys and values,
   rows `stride` apart. A constant dim keeps the sums in registers. */
static inline __attribute__((always_inline)) void attend(const float *q, const float *keys, const float *values,
                                                         size_t stride, const int32_t *origins, int length, int dim,
                                                         float *weights, float *to) {
  const float scale = 1 / sqrtf((float)dim);
  float peak = -INFINITY, sum = 0;
  for (int j = 0; j < length; j++) {
    const float *key = keys + origins[j] * stride + (size_t)j * dim;
    float dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int i = 0; i < dim; i++) dot += q[i] * key[i];
    weights[j] = dot * scale;
    peak = weights[j] > peak ? weights[j] : peak;
  }
#pragma omp simd reduction(+ : sum)
  for (int j = 0; j < length; j++) { weights[j] = fast_exp(weights[j] - peak); sum += weights[j]; }
  const float inverse = 1 / sum;
  for (int i = 0; i < dim; i++) to[i] = 0;
  int j = 0;
  for (; j + 4 <= length; j += 4) { /* four positions for each time that the sums are taken up */
    const float *v[4];
    for (int i = 0; i < 4; i++) v[i] = values + origins[j + i] * stride + (size_t)(j + i) * dim;
    const float *w = weights + j;
    for (int i = 0; i < dim; i++) to[i] += w[0] * v[0][i] + w[1] * v[1][i] + w[2] * v[2][i] + w[3] * v[3][i];
  }
  for (; j < length; j++) {
    const float *v = values + origins[j] * stride + (size_t)j * dim;
    for (int i = 0; i < dim; i++) to[i] += weights[j] * v[i];
  }
  for (int i = 0; i < dim; i++) to[i] *= inverse;
}

/* Thread t's share of wide [count][l->rows] = input times the weights, plus bias. */
static void products(const Gpt2 *g, const Linear *l, const float *bias, int count, int t, int n, float *out,
                     int *first, int *last) {
  *first = l->rows / TILE * t / n;
  *last = l->rows / TILE * (t + 1) / n;
  sonant_run_tiles(l, count, &g->input, out, l->rows, *first, *last);
  *first *= TILE;
  *last *= TILE;
  if (bias)
    for (int m = 0; m < count; m++)
      for (int i = *first; i < *last; i++) out[(size_t)m * l->rows + i] += bias[i];
}

/* What thread t of n does; a `meet` stands wherever a phase reads what another thread wrote. */
static void run_layers(Gpt2 *g, int t, int n, int count, const int32_t *rows, const int32_t *positions,
                       const int32_t *origins, const Cache *cache, float *scores, float *scratch) {
  const int width = g->width, heads = g->heads, dim = width / heads, capacity = cache->capacity;
  const size_t stride = (size_t)heads * capacity * dim;
  const unsigned mode = flush_subnormals();
  float *normed = scratch, *weights = scratch + width;
  int first, last;
  for (int index = 0; index < g->layers; index++) {
    const Gpt2Layer *l = &g->layer[index];
    EACH_TOKEN {
      layer_norm(g->x + (size_t)m * width, l->vectors[0], l->vectors[1], normed, width, g->eps);
      sonant_put(l->qkv, &g->input, m, normed);
    }
    meet(&g->barrier, n);
    products(g, l->qkv, l->vectors[4], count, t, n, g->wide, &first, &last);
    meet(&g->barrier, n);
    /* One thread has a head of all rows: rows that share positions find them in its cache. */
    for (int h = t; h < heads; h += n) {
      float *keys = cache->keys[index] + (size_t)h * capacity * dim;
      float *values = cache->values[index] + (size_t)h * capacity * dim;
      for (int m = 0; m < count; m++) {
        const float *made = g->wide + (size_t)m * 3 * width + h * dim;
        const size_t place = rows[m] * stride + (size_t)positions[m] * dim;
        memcpy(keys + place, made + width, sizeof(float) * dim);
        memcpy(values + place, made + 2 * width, sizeof(float) * dim);
      }
      for (int m = 0; m < count; m++) {
        const float *q = g->wide + (size_t)m * 3 * width + h * dim;
        const int32_t *from = origins + (size_t)rows[m] * capacity;
        float *to = g->attended + (size_t)m * width + h * dim;
        if (dim == 64) attend(q, keys, values, stride, from, positions[m] + 1, 64, weights, to);
        else attend(q, keys, values, stride, from, positions[m] + 1, dim, weights, to);
      }
    }
    meet(&g->barrier, n);
    EACH_TOKEN sonant_put(l->out, &g->input, m, g->attended + (size_t)m * width);
    meet(&g->barrier, n);
    products(g, l->out, l->vectors[5], count, t, n, g->wide, &first, &last);
    for (int m = 0; m < count; m++)
      for (int i = first; i < last; i++) g->x[(size_t)m * width + i] += g->wide[(size_t)m * width + i];
    meet(&g->barrier, n);
    EACH_TOKEN {
      layer_norm(g->x + (size_t)m * width, l->vectors[2], l->vectors[3], normed, width, g->eps);
      sonant_put(l->up, &g->input, m, normed);
    }
    meet(&g->barrier, n);
    products(g, l->up, l->vectors[6], count, t, n, g->wide, &first, &last);
    for (int m = 0; m < count; m++) {
      float *v = g->wide + (size_t)m * g->middle;
#pragma omp simd
      for (int i = first; i < last; i++) /* GELU by tanh, as x times a sigmoid; 1.5957691 is 2 sqrt(2 / pi) */
        v[i] = v[i] / (1 + fast_exp(-1.5957691216f * (v[i] + 0.044715f * v[i] * v[i] * v[i])));
    }
    meet(&g->barrier, n);
    EACH_TOKEN sonant_put(l->down, &g->input, m, g->wide + (size_t)m * g->middle);
    meet(&g->barrier, n);
    products(g, l->down, l->vectors[7], count, t, n, g->wide, &first, &last);
    for (int m = 0; m < count; m++)
      for (int i = first; i < last; i++) g->x[(size_t)m * width + i] += g->wide[(size_t)m * width + i];
    meet(&g->barrier, n);
  }
  EACH_TOKEN {
    float *x = g->x + (size_t)m * width;
    for (int i = 0; i < NORMS; i++) layer_norm(x, g->norms[2 * i], g->norms[2 * i + 1], x, width, g->eps);
    sonant_put(g->head, &g->input, m, x);
  }
  meet(&g->barrier, n);
  products(g, g->head, g->head_bias, count, t, n, g->scores, &first, &last);
  if (last > g->scored) last = g->scored;
  for (int m = 0; m < count; m++)
    for (int i = first; i < last; i++) scores[(size_t)m * g->scored + i] = g->scores[(size_t)m * g->head->rows + i];
  allow_subnormals(mode);
}

/* scores [count][scored] of the new positions x [count][width]; token m is position positions[m] of row rows[m], and no
   two are of one row. Earlier positions j of row r are read from row origins[r][j] of the cache, which is what lets rows
   share what they have in common. WRONG_SIZE for what neither the stack nor the cache has. */
int sonant_gpt2_run(Gpt2 *g, int count, const float *x, const int32_t *rows, const int32_t *positions,
                    const int32_t *origins, float *const *keys, float *const *values, int slots, int capacity,
                    float *scores, int threads) {
  int longest = 0;
  if (count < 1 || count > g->max_rows || threads < 1) return WRONG_SIZE;
  for (int m = 0; m < count; m++) {
    if (rows[m] < 0 || rows[m] >= slots || positions[m] < 0 || positions[m] >= capacity) return WRONG_SIZE;
    const int32_t *from = origins + (size_t)rows[m] * capacity;
    for (int j = 0; j < positions[m]; j++)
      if (from[j] < 0 || from[j] >= slots) return WRONG_SIZE;
    if (from[positions[m]] != rows[m]) return WRONG_SIZE;
    longest = positions[m] + 1 > longest ? positions[m] + 1 : longest;
  }
  for (int i = 0; i < g->layers; i++)
    if (!g->layer[i].qkv) return WRONG_SIZE;
  const size_t each = ((size_t)g->width + longest + 15) / 16 * 16; /* no cache line is two threads' */
  float *scratch = malloc(sizeof(float) * each * threads);
  if (!scratch) return NO_MEMORY;
  const Cache cache = {keys, values, slots, capacity, NULL, NULL};
  memcpy(g->x, x, sizeof(float) * count * g->width);
#pragma omp parallel num_threads(threads)
  {
    const int t = omp_get_thread_num();
    run_layers(g, t, omp_get_num_threads(), count, rows, positions, origins, &cache, scores, scratch + each * t);
  }
  free(scratch);
  return DONE;
}
