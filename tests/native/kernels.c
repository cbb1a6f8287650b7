/* The C kernels against plain loops, under whatever sanitizers this is compiled with; see `make test-native`.

   Each part also runs with the n-th allocation failing, for every n: it must say so and give everything back. */
#include <limits.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "stack.h"

typedef struct Conv Conv;
typedef struct Fixed Fixed;
Linear *sonant_linear_new(int rows, int inputs, int bits, int group, int planes);
void sonant_linear_free(Linear *l);
int sonant_linear_pack(Linear *l, const float *weights);
int sonant_linear_run(const Linear *l, int count, const float *x, const float *bias, float *y, int threads);
void sonant_choose_path(int path);
int sonant_best_path(void);
Stack *sonant_stack_new(int layers, int width, int heads, int kv_heads, int head_dim, int intermediate, float eps,
                        float theta, int max_tokens);
void sonant_stack_free(Stack *st);
int sonant_stack_layer(Stack *st, int index, Linear *qkv, Linear *out, Linear *gate_up, Linear *down,
                       const float *input_norm, const float *post_norm, const float *query_norm,
                       const float *key_norm, const float *qkv_bias);
void sonant_stack_norm(Stack *st, const float *final_norm);
int sonant_stack_run(Stack *st, int count, const float *x, const int32_t *rows, const int32_t *positions,
                     float *const *keys, float *const *values, int slots, int capacity, const float *cosines,
                     const float *sines, int angles, float *hidden, int threads);
int sonant_frame_run(Stack *early, Stack *late, int late_from, int batch, int groups, int source, int vocabulary,
                     const float *hidden, const float *first, const Linear *project, const float *project_bias,
                     Linear *const *heads, const float *const *tables, float *const *keys, float *const *values,
                     int slots, int capacity, const float *cosines, const float *sines, int angles,
                     const int32_t *greedy, const int32_t *top_k, const float *temperature, const float *race, int64_t *tokens, float *total,
                     int threads);
Fixed *sonant_fixed_new(int rows, int width, int taps, const float *weights);
void sonant_fixed_free(Fixed *f);
int sonant_fixed_run(const Fixed *f, int count, const float *x, const float *bias, float *y, int threads);
Conv *sonant_conv_new(int inputs, int outputs, int taps, int dilation, int is_narrow, const float *weights);
void sonant_conv_free(Conv *c);
int sonant_conv_has_bfloat16(void);
int sonant_conv_run(const Conv *c, int length, const float *x, const float *speed, const float *size, const float *past,
                    float *next, const float *bias, const float *residual, float *y, int threads);
int sonant_oversampled_snake(int length, int channels, const float *x, const float *up, const float *down,
                             const float *speed, const float *size, float *y, int threads);

/* Allocations of the kernels go through here (the linker's --wrap). */
void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
static int is_counting, made, fail_at;
static int fails(void) { return is_counting && ++made == fail_at; }
void *__wrap_malloc(size_t bytes) { return fails() ? NULL : __real_malloc(bytes); }
void *__wrap_calloc(size_t count, size_t bytes) { return fails() ? NULL : __real_calloc(count, bytes); }

#define CHECK(condition) \
  do { \
    if (!(condition)) { fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); exit(1); } \
  } while (0)

static uint32_t seed = 1;
static float uniform(void) {
  seed = seed * 1664525u + 1013904223u;
  return (float)(seed >> 8) / (1 << 23) - 1;
}
static float *random_floats(size_t count, float size) {
  float *made_here = __real_malloc(sizeof(float) * count);
  for (size_t i = 0; i < count; i++) made_here[i] = uniform() * size;
  return made_here;
}
static float as_bfloat16(float x) {
  union { float value; uint32_t bits; } u = {x};
  u.bits &= 0xffff0000u;
  return u.value;
}

/* One matrix of each precision: its products are near those of the floats. 0 when memory ran out. */
static int linear(int bits, int group, int planes, double bound) {
  const int rows = 128, inputs = 256;
  float *weights = random_floats((size_t)rows * inputs, 0.1f), *bias = random_floats(rows, 1);
  if (bits == 16) for (int i = 0; i < rows * inputs; i++) weights[i] = as_bfloat16(weights[i]);
  int status = DONE;
  Linear *l = sonant_linear_new(rows, inputs, bits, group, planes);
  if (!l || (status = sonant_linear_pack(l, weights)) != DONE) status = NO_MEMORY;
  for (int count = 1; status == DONE && count <= (is_counting ? 2 : 14); count++) {
    float *x = random_floats((size_t)count * inputs, 1), *y = __real_malloc(sizeof(float) * count * rows);
    status = sonant_linear_run(l, count, x, count % 2 ? bias : NULL, y, 2);
    double error = 0, power = 0;
    for (int m = 0; status == DONE && m < count; m++)
      for (int r = 0; r < rows; r++) {
        double sum = count % 2 ? bias[r] : 0;
        for (int k = 0; k < inputs; k++) sum += (double)weights[r * inputs + k] * x[m * inputs + k];
        error += (sum - y[m * rows + r]) * (sum - y[m * rows + r]);
        power += sum * sum;
      }
    if (status == DONE) CHECK(sqrt(error / power) < bound);
    free(x); free(y);
  }
  if (l) CHECK(sonant_linear_run(l, 0, weights, NULL, bias, 1) == WRONG_SIZE);
  sonant_linear_free(l);
  free(weights); free(bias);
  return status;
}

static int matrices(void) {
  const struct { int bits, group, planes; double bound; } kinds[] = {
      {16, 1, 1, 1e-5}, {8, 64, 1, 0.02}, {8, 32, 2, 0.01}, {12, 64, 2, 0.002}, {4, 32, 1, 0.15}, {4, 64, 2, 0.15}};
  for (int path = is_counting ? sonant_best_path() : 0; path <= sonant_best_path(); path++)
    for (int i = 0; i < 6; i++) {
      sonant_choose_path(path);
      if (linear(kinds[i].bits, kinds[i].group, kinds[i].planes, kinds[i].bound) != DONE) return NO_MEMORY;
    }
  sonant_choose_path(-1);
  return DONE;
}

/* Products in fixed point are near those of the floats, of whole groups and tiles and of pieces of them. */
static int fixed(void) {
  const int sizes[3][3] = {{128, 128, 1}, {70, 100, 1}, {37, 70, 3}}; /* outputs, inputs, taps */
  int status = DONE;
  for (int path = is_counting ? sonant_best_path() : 0; path <= sonant_best_path(); path++)
    for (int i = 0; i < 3 && status == DONE; i++) {
      const int rows = sizes[i][0], width = sizes[i][1], taps = sizes[i][2];
      float *weights = random_floats((size_t)rows * taps * width, 0.1f), *bias = random_floats(rows, 1);
      sonant_choose_path(path);
      Fixed *f = sonant_fixed_new(rows, width, taps, weights);
      status = f ? DONE : NO_MEMORY;
      for (int count = 1; status == DONE && count < (is_counting ? 2 : 200); count += count < 8 ? 1 : 61) {
        float *x = random_floats((size_t)(count + taps - 1) * width, 1), *y = random_floats((size_t)count * rows, 0);
        status = sonant_fixed_run(f, count, x, count % 2 ? bias : NULL, y, 2);
        double error = 0, power = 0;
        for (int m = 0; status == DONE && m < count; m++)
          for (int r = 0; r < rows; r++) {
            double sum = count % 2 ? bias[r] : 0;
            for (int k = 0; k < taps * width; k++) sum += (double)weights[r * taps * width + k] * x[m * width + k];
            error += (sum - y[m * rows + r]) * (sum - y[m * rows + r]);
            power += sum * sum;
          }
        if (status == DONE) CHECK(sqrt(error / power) < 0.0005);
        free(x); free(y);
      }
      if (f) CHECK(sonant_fixed_run(f, 0, weights, NULL, bias, 1) == WRONG_SIZE);
      sonant_fixed_free(f);
      free(weights); free(bias);
    }
  sonant_choose_path(-1);
  return status;
}

/* A stack of two layers: tokens together are tokens one by one, and what does not fit is refused. */
enum { WIDTH = 64, HEADS = 4, KV = 2, DIM = 16, MIDDLE = 64, LAYERS = 2, SLOTS = 3, CAPACITY = 9, MOST = 8, VOCABULARY = 60 };

typedef struct {
  Stack *st;
  Linear *matrices[4 * LAYERS], *heads[4];
  float *norms, *cache[2 * LAYERS], *angles, *tables[4];
} Toy;

static Linear *packed(int rows, int inputs) {
  Linear *l = sonant_linear_new(rows, inputs, 8, 32, 2);
  float *weights = random_floats((size_t)rows * inputs, 0.2f);
  if (l && sonant_linear_pack(l, weights) != DONE) { sonant_linear_free(l); l = NULL; }
  free(weights);
  return l;
}

static int build(Toy *toy) {
  memset(toy, 0, sizeof *toy);
  toy->norms = random_floats(WIDTH + 2 * DIM, 1);
  toy->angles = random_floats(CAPACITY * DIM, 1);
  for (int i = 0; i < 2 * LAYERS; i++) toy->cache[i] = random_floats(SLOTS * KV * CAPACITY * DIM, 0);
  for (int g = 0; g < 4; g++) toy->tables[g] = random_floats((size_t)VOCABULARY * WIDTH, 1);
  toy->st = sonant_stack_new(LAYERS, WIDTH, HEADS, KV, DIM, MIDDLE, 1e-6f, 1e4f, MOST);
  if (!toy->st) return NO_MEMORY;
  sonant_stack_norm(toy->st, toy->norms);
  for (int l = 0; l < LAYERS; l++) {
    Linear **m = toy->matrices + 4 * l;
    m[0] = packed((HEADS + 2 * KV) * DIM, WIDTH);
    m[1] = packed(WIDTH, HEADS * DIM);
    m[2] = packed(2 * MIDDLE, WIDTH);
    m[3] = packed(WIDTH, MIDDLE);
    if (!m[0] || !m[1] || !m[2] || !m[3]) return NO_MEMORY;
    const float *norm = toy->norms, *own = norm + WIDTH;
    CHECK(sonant_stack_layer(toy->st, LAYERS, m[0], m[1], m[2], m[3], norm, norm, own, own, NULL) == WRONG_SIZE);
    CHECK(sonant_stack_layer(toy->st, -1, m[0], m[1], m[2], m[3], norm, norm, own, own, NULL) == WRONG_SIZE);
    CHECK(sonant_stack_layer(toy->st, l, m[0], m[1], m[3], m[2], norm, norm, own, own, NULL) == WRONG_SIZE);
    CHECK(sonant_stack_layer(toy->st, l, m[0], m[1], m[2], m[3], norm, norm, own, own, NULL) == DONE);
  }
  for (int g = 0; g < 4; g++)
    if (!(toy->heads[g] = packed(TILE, WIDTH))) return NO_MEMORY;
  return DONE;
}

static void drop(Toy *toy) {
  sonant_stack_free(toy->st);
  for (int i = 0; i < 4 * LAYERS; i++) sonant_linear_free(toy->matrices[i]);
  for (int i = 0; i < 2 * LAYERS; i++) free(toy->cache[i]);
  for (int g = 0; g < 4; g++) { sonant_linear_free(toy->heads[g]); free(toy->tables[g]); }
  free(toy->norms); free(toy->angles);
}

static int run_with(Toy *toy, int angles, int count, const float *x, const int32_t *rows, const int32_t *places,
                    float *out, int threads) {
  return sonant_stack_run(toy->st, count, x, rows, places, toy->cache, toy->cache + LAYERS, SLOTS, CAPACITY,
                          toy->angles, toy->angles + CAPACITY * DIM / 2, angles, out, threads);
}

static int run(Toy *toy, int count, const float *x, const int32_t *rows, const int32_t *places, float *out, int threads) {
  return run_with(toy, CAPACITY, count, x, rows, places, out, threads);
}

static int stack(void) {
  Toy toy;
  int status = build(&toy);
  float *x = random_floats(MOST * WIDTH, 1), *whole = random_floats(MOST * WIDTH, 0), *one = random_floats(WIDTH, 0);
  int32_t rows[MOST], places[MOST];
  for (int m = 0; m < MOST; m++) { rows[m] = 2; places[m] = m; }
  if (status == DONE) status = run(&toy, MOST, x, rows, places, whole, 2);
  for (int m = 0; status == DONE && m < MOST; m++) {
    rows[0] = 1;
    places[0] = m;
    status = run(&toy, 1, x + m * WIDTH, rows, places, one, 1);
    for (int i = 0; status == DONE && i < WIDTH; i++) CHECK(fabsf(one[i] - whole[m * WIDTH + i]) < 1e-4f);
  }
  if (status == DONE) {
    const int32_t good = 0, low = -1, slots = SLOTS, end = CAPACITY;
    CHECK(run(&toy, 1, x, &slots, &good, one, 1) == WRONG_SIZE);
    CHECK(run(&toy, 1, x, &low, &good, one, 1) == WRONG_SIZE);
    CHECK(run(&toy, 1, x, &good, &end, one, 1) == WRONG_SIZE);
    CHECK(run(&toy, 1, x, &good, &low, one, 1) == WRONG_SIZE);
    CHECK(run(&toy, MOST + 1, x, rows, places, whole, 1) == WRONG_SIZE);
    CHECK(run(&toy, 0, x, rows, places, whole, 1) == WRONG_SIZE);
    CHECK(run(&toy, 1, x, &good, &good, one, 0) == WRONG_SIZE);
    places[0] = 3;
    CHECK(run_with(&toy, 3, 1, x, rows, places, one, 1) == WRONG_SIZE); /* positions beyond the table */
    CHECK(run_with(&toy, 4, 1, x, rows, places, one, 1) == DONE || is_counting);
    const Layer kept = toy.st->layer[LAYERS - 1];
    toy.st->layer[LAYERS - 1] = (Layer){NULL}; /* as if it had never been given */
    CHECK(run(&toy, 1, x, &good, &good, one, 1) == WRONG_SIZE);
    toy.st->layer[LAYERS - 1] = kept;
    sonant_stack_norm(toy.st, NULL);
    CHECK(run(&toy, 1, x, &good, &good, one, 1) == WRONG_SIZE);
    sonant_stack_norm(toy.st, toy.norms);
    CHECK(run(&toy, 1, x, &good, &good, one, 1) == DONE || is_counting);
  }
  drop(&toy);
  free(x); free(whole); free(one);
  return status;
}

static int frame_with(Toy *toy, Stack *late, int batch, int groups, int capacity, int angles, int vocabulary,
                      const Linear *project, int64_t *tokens, float *total, int threads) {
  static const int32_t greedy[3] = {1, 0, 0}, top_k[3] = {0, 0, 5};
  static const float temperature[3] = {1, 0.7f, 1.5f};
  float *hidden = random_floats(3 * WIDTH, 1), *first = random_floats(3 * WIDTH, 1);
  float *race = random_floats((size_t)4 * 3 * VOCABULARY, 1);
  for (int i = 0; i < 4 * 3 * VOCABULARY; i++) race[i] = fabsf(race[i]) + 1e-3f;
  const int status = sonant_frame_run(
      toy->st, late, 1, batch, groups, WIDTH, vocabulary, hidden, first, project, NULL, toy->heads,
      (const float *const *)toy->tables, toy->cache, toy->cache + LAYERS, SLOTS, capacity, toy->angles,
      toy->angles + CAPACITY * DIM / 2, angles, greedy, top_k, temperature, race, tokens, total, threads);
  free(hidden); free(first); free(race);
  return status;
}

static int frame_of(Toy *toy, int batch, int groups, int capacity, const Linear *project, int64_t *tokens, float *total) {
  return frame_with(toy, NULL, batch, groups, capacity, CAPACITY, VOCABULARY, project, tokens, total, 2);
}

/* Late stacks of other sizes than the first, and one that is of the same but never got its layers, are refused. */
static int late_stacks(Toy *toy, int64_t *tokens, float *total) {
  const int sizes[][6] = {{LAYERS + 1, WIDTH, HEADS, KV, DIM, MIDDLE}, {LAYERS - 1, WIDTH, HEADS, KV, DIM, MIDDLE},
                          {LAYERS, WIDTH, 2 * HEADS, KV, DIM, MIDDLE}, {LAYERS, WIDTH, HEADS, HEADS, DIM, MIDDLE},
                          {LAYERS, WIDTH, HEADS, KV, 2 * DIM, MIDDLE}, {LAYERS, 2 * WIDTH, HEADS, KV, DIM, MIDDLE},
                          {LAYERS, WIDTH, HEADS, KV, DIM, MIDDLE}};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    const int *s = sizes[i];
    Stack *late = sonant_stack_new(s[0], s[1], s[2], s[3], s[4], s[5], 1e-6f, 1e4f, MOST);
    if (!late) return NO_MEMORY;
    if (i + 1 < sizeof sizes / sizeof *sizes) { /* so that its sizes alone are wrong */
      late->final_norm = toy->norms;
      for (int l = 0; l < s[0]; l++) late->layer[l] = toy->st->layer[l % LAYERS];
    }
    CHECK(frame_with(toy, late, 3, 4, CAPACITY, CAPACITY, VOCABULARY, NULL, tokens, total, 2) == WRONG_SIZE);
    sonant_stack_free(late);
  }
  Stack *late = sonant_stack_new(LAYERS, WIDTH, HEADS, KV, DIM, MIDDLE, 1e-6f, 1e4f, MOST);
  if (!late) return NO_MEMORY;
  late->final_norm = toy->norms;
  memcpy(late->layer, toy->st->layer, sizeof *late->layer * LAYERS);
  const int status = frame_with(toy, late, 3, 4, CAPACITY, CAPACITY, VOCABULARY, NULL, tokens, total, 2);
  sonant_stack_free(late);
  return status;
}

static int frame(void) {
  Toy toy;
  int status = build(&toy);
  int64_t tokens[3 * 4];
  float total[3 * WIDTH];
  if (status == DONE) status = frame_of(&toy, 3, 4, CAPACITY, NULL, tokens, total);
  if (status == DONE) {
    for (int i = 0; i < 3 * 4; i++) CHECK(tokens[i] >= 0 && tokens[i] < VOCABULARY);
    for (int b = 0; b < 3; b++)
      for (int i = 0; i < WIDTH; i++) {
        float sum = 0;
        for (int g = 0; g < 4; g++) sum += toy.tables[g][tokens[b * 4 + g] * WIDTH + i];
        CHECK(fabsf(sum - total[b * WIDTH + i]) < 1e-4f);
      }
    CHECK(frame_of(&toy, 3, 4, 4, NULL, tokens, total) == WRONG_SIZE); /* groups beyond the cache */
    CHECK(frame_of(&toy, SLOTS + 1, 4, CAPACITY, NULL, tokens, total) == WRONG_SIZE);
    CHECK(frame_of(&toy, 0, 4, CAPACITY, NULL, tokens, total) == WRONG_SIZE);
    CHECK(frame_of(&toy, 1, 4, CAPACITY, toy.matrices[2], tokens, total) == WRONG_SIZE);
    CHECK(frame_with(&toy, NULL, 3, 4, CAPACITY, CAPACITY, 0, NULL, tokens, total, 2) == WRONG_SIZE);
    CHECK(frame_with(&toy, NULL, 3, 4, CAPACITY, CAPACITY, VOCABULARY, NULL, tokens, total, 0) == WRONG_SIZE);
    CHECK(frame_with(&toy, NULL, 3, 4, CAPACITY, 4, VOCABULARY, NULL, tokens, total, 2) == WRONG_SIZE);
    CHECK(frame_with(&toy, NULL, 3, 4, CAPACITY, 5, VOCABULARY, NULL, tokens, total, 2) == DONE || is_counting);
    const Layer kept = toy.st->layer[0];
    toy.st->layer[0] = (Layer){NULL};
    CHECK(frame_of(&toy, 3, 4, CAPACITY, NULL, tokens, total) == WRONG_SIZE);
    toy.st->layer[0] = kept;
    status = late_stacks(&toy, tokens, total);
  }
  drop(&toy);
  return status;
}

/* A stack of the GPT-2 kind: rows that share positions are rows of their own, and what does not fit is refused. */
typedef struct Gpt2 Gpt2;
Gpt2 *sonant_gpt2_new(int layers, int width, int heads, int middle, int scored, float eps, int max_rows,
                      const float *const *norms, const Linear *head, const float *head_bias);
void sonant_gpt2_free(Gpt2 *g);
int sonant_gpt2_layer(Gpt2 *g, int index, const Linear *qkv, const Linear *out, const Linear *up, const Linear *down,
                      const float *const *vectors);
int sonant_gpt2_run(Gpt2 *g, int count, const float *x, const int32_t *rows, const int32_t *positions,
                    const int32_t *origins, float *const *keys, float *const *values, int slots, int capacity,
                    float *scores, int threads);

static int gpt2(void) {
  enum { MOST_ROWS = 3, STEPS = 5 };
  Linear *m[4 * LAYERS] = {NULL}, *head = NULL;
  float *vector = random_floats(4 * MIDDLE, 1), *x = random_floats(STEPS * WIDTH, 1), *cache[2 * LAYERS];
  const float *vectors[8] = {vector, vector + 1, vector + 2, vector + 3, vector, NULL, vector, vector};
  float shared[MOST_ROWS * VOCABULARY], own[MOST_ROWS * VOCABULARY];
  for (int i = 0; i < 2 * LAYERS; i++) cache[i] = random_floats(SLOTS * CAPACITY * WIDTH, 0);
  head = packed(TILE, WIDTH);
  Gpt2 *g = head ? sonant_gpt2_new(LAYERS, WIDTH, HEADS, MIDDLE, VOCABULARY, 1e-5f, MOST_ROWS, vectors, head, vector) : NULL;
  int status = g ? DONE : NO_MEMORY;
  for (int l = 0; status == DONE && l < LAYERS; l++) {
    const int sizes[4][2] = {{3 * WIDTH, WIDTH}, {WIDTH, WIDTH}, {MIDDLE, WIDTH}, {WIDTH, MIDDLE}};
    for (int i = 0; i < 4; i++)
      if (!(m[4 * l + i] = packed(sizes[i][0], sizes[i][1]))) status = NO_MEMORY;
    if (status != DONE) break;
    Linear **own_of = m + 4 * l;
    CHECK(sonant_gpt2_layer(g, LAYERS, own_of[0], own_of[1], own_of[2], own_of[3], vectors) == WRONG_SIZE);
    CHECK(sonant_gpt2_layer(g, l, own_of[1], own_of[1], own_of[2], own_of[3], vectors) == WRONG_SIZE);
    CHECK(sonant_gpt2_layer(g, l, own_of[0], own_of[1], own_of[2], NULL, vectors) == WRONG_SIZE);
    CHECK(sonant_gpt2_layer(g, l, own_of[0], own_of[1], own_of[2], own_of[3], vectors) == DONE);
  }
  int32_t rows[MOST_ROWS] = {0, 1, 2}, places[MOST_ROWS], origins[SLOTS * CAPACITY] = {0};
  /* Rows 1 and 2 are fed as row 0 is, row 2 from its own storage and row 1 from row 0's but for its last place. */
  for (int step = 0; status == DONE && step < STEPS; step++) {
    float three[MOST_ROWS * WIDTH];
    for (int r = 0; r < MOST_ROWS; r++) {
      memcpy(three + r * WIDTH, x + step * WIDTH, sizeof(float) * WIDTH);
      places[r] = step;
      origins[r * CAPACITY + step] = r;
      if (r == 1 && step) origins[CAPACITY + step - 1] = 0;
    }
    status = sonant_gpt2_run(g, MOST_ROWS, three, rows, places, origins, cache, cache + LAYERS, SLOTS, CAPACITY, shared, 2);
    if (status == DONE)
      status = sonant_gpt2_run(g, 1, three, rows, places, origins, cache, cache + LAYERS, SLOTS, CAPACITY, own, 1);
    for (int i = 0; status == DONE && i < VOCABULARY; i++) {
      CHECK(isfinite(own[i]) && fabsf(own[i] - shared[i]) < 1e-4f);
      CHECK(shared[i] == shared[VOCABULARY + i] && shared[i] == shared[2 * VOCABULARY + i]);
    }
  }
  if (status == DONE) {
    const int32_t zero = 0, low = -1, slots = SLOTS, end = CAPACITY, last = STEPS;
#define RUN(count, row, place) \
  sonant_gpt2_run(g, count, x, row, place, origins, cache, cache + LAYERS, SLOTS, CAPACITY, own, 1)
    CHECK(RUN(1, &slots, &zero) == WRONG_SIZE && RUN(1, &low, &zero) == WRONG_SIZE);
    CHECK(RUN(1, &zero, &end) == WRONG_SIZE && RUN(1, &zero, &low) == WRONG_SIZE);
    CHECK(RUN(0, &zero, &zero) == WRONG_SIZE && RUN(MOST_ROWS + 1, rows, places) == WRONG_SIZE);
    origins[last] = 1; /* a new place is the row's own */
    CHECK(RUN(1, &zero, &last) == WRONG_SIZE);
    origins[last] = 0;
    origins[1] = SLOTS; /* and old ones are somebody's */
    CHECK(RUN(1, &zero, &last) == WRONG_SIZE);
#undef RUN
    CHECK(!sonant_gpt2_new(1, WIDTH, 3, MIDDLE, VOCABULARY, 1e-5f, 1, vectors, head, NULL));
    CHECK(!sonant_gpt2_new(1, WIDTH, HEADS, MIDDLE, TILE + 1, 1e-5f, 1, vectors, head, NULL));
    CHECK(fast_exp(-1000) < 1e-37f && fast_exp(1000) > 1e38f && fast_exp(0) == 1);
  }
  sonant_gpt2_free(g);
  sonant_linear_free(head);
  for (int i = 0; i < 4 * LAYERS; i++) sonant_linear_free(m[i]);
  for (int i = 0; i < 2 * LAYERS; i++) free(cache[i]);
  free(vector); free(x);
  return status;
}

/* Convolutions in pieces are the convolution of the whole, to the bit, and near the plain sum. */
static int convolution(void) {
  const int inputs = 10, outputs = 37, taps = 3, dilation = 2, length = 40, context = (taps - 1) * dilation;
  float *weights = random_floats((size_t)outputs * taps * inputs, 0.3f), *x = random_floats(length * inputs, 1);
  float *whole = random_floats(length * outputs, 0), *piece = random_floats(length * outputs, 0);
  float *past = random_floats(context * inputs, 0), *next = random_floats(context * inputs, 0);
  float *bias = random_floats(outputs, 1), *speed = random_floats(inputs, 2), *size = random_floats(inputs, 1);
  int status = DONE;
  for (int narrow = 0; narrow <= sonant_conv_has_bfloat16() && status == DONE; narrow++) {
    Conv *c = sonant_conv_new(inputs, outputs, taps, dilation, narrow, weights);
    status = c ? sonant_conv_run(c, length, x, speed, size, past, next, bias, NULL, whole, 2) : NO_MEMORY;
    memset(past, 0, sizeof(float) * context * inputs);
    for (int at = 0, step = 1; status == DONE && at < length; at += step, step = 7) {
      const int count = length - at < step ? length - at : step;
      status = sonant_conv_run(c, count, x + at * inputs, speed, size, past, next, bias, NULL, piece + at * outputs, 2);
      memcpy(past, next, sizeof(float) * context * inputs);
    }
    if (status == DONE) CHECK(!memcmp(whole, piece, sizeof(float) * length * outputs));
    memset(past, 0, sizeof(float) * context * inputs);
    for (int t = 0; status == DONE && t < length; t++)
      for (int o = 0; o < outputs; o++) {
        double sum = bias[o];
        for (int k = 0; k < taps; k++)
          for (int i = 0; i < inputs; i++) {
            const int from = t - context + k * dilation;
            if (from < 0) continue;
            const double v = x[from * inputs + i], s = sin(speed[i] * v);
            sum += weights[(o * taps + k) * inputs + i] * (v + size[i] * s * s);
          }
        CHECK(fabs(sum - whole[t * outputs + o]) < (narrow ? 0.1 : 1e-4));
      }
#define RUN(length, speed, size, threads) \
  sonant_conv_run(c, length, x, speed, size, past, next, bias, NULL, whole, threads)
    if (c) CHECK(RUN(-1, speed, size, 1) == WRONG_SIZE && RUN(INT_MAX, speed, size, 1) == WRONG_SIZE);
    if (c) CHECK(RUN(length, speed, size, 0) == WRONG_SIZE && RUN(length, speed, size, -1) == WRONG_SIZE);
    if (c) CHECK(RUN(length, speed, NULL, 1) == WRONG_SIZE && RUN(length, NULL, size, 1) == WRONG_SIZE);
#undef RUN
    for (int i = 0; i < context * inputs; i++) past[i] = i;
    if (status == DONE) status = sonant_conv_run(c, 0, x, speed, size, past, next, bias, NULL, whole, 1);
    if (status == DONE) CHECK(!memcmp(past, next, sizeof(float) * context * inputs)); /* nothing came: as before */
    memset(past, 0, sizeof(float) * context * inputs);
    sonant_conv_free(c);
  }
  CHECK(!sonant_conv_new(0, 1, 1, 1, 0, weights));
  CHECK(!sonant_conv_new(1, 1, 3, INT_MAX / 2 + 1, 0, weights)); /* more rows before than can be counted */
  CHECK(!sonant_conv_new(3, 1, 1, 1, 1, weights)); /* odd, and narrow */
  free(weights); free(x); free(whole); free(piece); free(past); free(next); free(bias); free(speed); free(size);
  return status;
}

static int oversampled(void) {
  const float taps[12] = {0, 0.02f, -0.03f, -0.06f, 0.12f, 0.45f, 0.45f, 0.12f, -0.06f, -0.03f, 0.02f, 0};
  for (int length = 1; length < 300; length += 97)
    for (int channels = 1; channels < 40; channels += 13) {
      float *x = random_floats((size_t)length * channels, 1), *y = random_floats((size_t)length * channels, 0);
      float *speed = random_floats(channels, 2), *size = random_floats(channels, 1);
#define RUN(length, channels, threads) \
  sonant_oversampled_snake(length, channels, x, taps, taps, speed, size, y, threads)
      CHECK(RUN(length, channels, 2) == DONE);
      for (int i = 0; i < length * channels; i++) CHECK(isfinite(y[i]));
      CHECK(RUN(0, channels, 2) == WRONG_SIZE && RUN(-1, channels, 2) == WRONG_SIZE);
      CHECK(RUN(INT_MAX, channels, 2) == WRONG_SIZE);
      CHECK(RUN(length, 0, 2) == WRONG_SIZE && RUN(length, -1, 2) == WRONG_SIZE);
      CHECK(RUN(length, channels, 0) == WRONG_SIZE && RUN(length, channels, -1) == WRONG_SIZE);
#undef RUN
      free(x); free(y); free(speed); free(size);
    }
  return DONE;
}

int main(void) {
  const struct { const char *name; int (*part)(void); } parts[] = {
      {"matrices", matrices}, {"fixed", fixed}, {"stack", stack}, {"frame", frame}, {"gpt2", gpt2}, {"convolution", convolution}, {"oversampled", oversampled}};
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
    CHECK(parts[i].part() == DONE);
    /* A slab is filled at once when it is made; after the first part one is held, so that it is not made anew for
       every try. */
    Linear *held = i ? sonant_linear_new(TILE, 32, 8, 32, 1) : NULL;
    is_counting = 1;
    int failed = 0;
    for (fail_at = 1; fail_at < 400; fail_at++) { /* until nothing is left to fail */
      made = 0;
      if (parts[i].part() == DONE && made < fail_at) break;
      failed++;
    }
    is_counting = 0;
    sonant_linear_free(held);
    printf("%s: well, and with each of %d allocations failing\n", parts[i].name, failed);
  }
  CHECK(!sonant_fixed_new(0, 64, 1, NULL) && !sonant_fixed_new(64, 0, 1, NULL) && !sonant_fixed_new(64, 64, 0, NULL));
  CHECK(!sonant_linear_new(63, 64, 8, 32, 1));
  CHECK(!sonant_linear_new(64, 64, 8, 48, 1));
  CHECK(!sonant_linear_new(64, 64, 7, 32, 1));
  CHECK(!sonant_stack_new(1, 64, 3, 2, 16, 64, 1e-6f, 1e4f, 4));
  CHECK(!sonant_stack_new(0, 64, 2, 2, 16, 64, 1e-6f, 1e4f, 4));
  return 0;
}
