/* A frame of the code predictor: all its tokens in one call, choices included. */
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include "stack.h"

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

/* Whether one cache serves both: what each has between is its own. */
static int are_alike(const Stack *a, const Stack *b) {
  return a->layers == b->layers && a->width == b->width && a->heads == b->heads && a->kv_heads == b->kv_heads &&
         a->head_dim == b->head_dim;
}

/* All other tokens of one frame for `batch` rows: hidden, first [batch][source] are the two positions that
   begin each row, tables[g] [vocabulary][source] embeds token g, heads[g] scores it. tokens [batch][groups];
   total [batch][source] is the sum of the tokens' embeddings. project (with its bias) leads from source to
   the stack's width; NULL when they are the same. From token late_from on `late` takes the place of the stack, with
   other weights for the same sizes, unless it is NULL. The positions of a row are 0 to groups: WRONG_SIZE where the
   cache, the table of angles, a stack or a head has no room for what is asked for, and for a stack that lacks a layer. */
int sonant_frame_run(Stack *early, Stack *late, int late_from, int batch, int groups, int source, int vocabulary, const float *hidden,
                     const float *first, const Linear *project, const float *project_bias,
                     Linear *const *heads, const float *const *tables, float *const *keys,
                     float *const *values, int slots, int capacity, const float *cosines, const float *sines,
                     int angles, const int32_t *greedy, const int32_t *top_k, const float *temperature, const float *race,
                     int64_t *tokens, float *total, int threads) {
  if (batch < 1 || groups < 1 || source < 1 || vocabulary < 1 || threads < 1 || batch > slots || groups >= capacity ||
      groups >= angles || batch > early->max_tokens / 2 || !is_whole(early) ||
      (late && (!are_alike(late, early) || batch > late->max_tokens / 2 || !is_whole(late))) ||
      (project ? project->inputs != source || project->rows != early->width : source != early->width))
    return WRONG_SIZE;
  for (int g = 0; g < groups; g++)
    if (heads[g]->rows < vocabulary || heads[g]->rows > heads[0]->rows || heads[g]->inputs != early->width)
      return WRONG_SIZE;
  const Cache cache = {keys, values, slots, capacity, cosines, sines};
  const Choice choice = {greedy, top_k, temperature, race};
  const int width = early->width, scored = heads[0]->rows, most = 2 * batch;
  float *x = malloc(sizeof(float) * most * source), *out = malloc(sizeof(float) * most * width);
  float *scores = malloc(sizeof(float) * batch * scored), *scratch = malloc(sizeof(float) * batch * vocabulary);
  int32_t *rows = malloc(sizeof(int32_t) * most), *positions = malloc(sizeof(int32_t) * most);
  Input in;
  const int has_input = sonant_input_fill(&in, most, source);
  const size_t each = sonant_layer_scratch(early, groups + 1);
  float *own = malloc(sizeof(float) * each * threads);
  const int fits = has_input && own && x && out && scores && scratch && rows && positions;
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
          EACH_TOKEN sonant_put(project, &in, m, x + (size_t)m * source);
          meet(&st->barrier, n);
          int from = width / TILE * t / n, to = width / TILE * (t + 1) / n;
          sonant_run_tiles(project, count, &in, st->x, width, from, to);
          if (project_bias)
            for (int m = 0; m < count; m++)
              for (int i = from * TILE; i < to * TILE; i++) st->x[(size_t)m * width + i] += project_bias[i];
        } else {
          EACH_TOKEN memcpy(st->x + (size_t)m * width, x + (size_t)m * width, sizeof(float) * width);
        }
        meet(&st->barrier, n);
        sonant_run_layers(st, t, n, count, rows, positions, &cache, out, own + each * t);
        meet(&st->barrier, n);
        for (int b = t; b < batch; b += n) sonant_put(heads[g], st->input, b, out + (size_t)(g ? b : 2 * b + 1) * width);
        meet(&st->barrier, n);
        sonant_run_tiles(heads[g], batch, st->input, scores, scored, scored / TILE * t / n, scored / TILE * (t + 1) / n);
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
  sonant_input_drop(&in); free(own);
  return fits ? DONE : NO_MEMORY;
}
