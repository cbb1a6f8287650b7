/* Weights lie in slabs of huge pages, which nearly double what one core reads from memory.

   The memory is fresh from the system, because recycled memory already has small pages. Where the system's
   memory is in fragments, asking for huge pages is not enough: the kernel gives small ones when it first
   fails to find a whole one. So a new slab is filled at once, and then the kernel is told to gather it. A slab
   goes when the last piece in it is given back. */
#include "memory.h"

#include <stdint.h>
#include <stdlib.h>
#if defined(__linux__)
#include <sys/mman.h>
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#endif

#define SLAB ((size_t)64 << 20)
#define HUGE_PAGE ((size_t)2 << 20)

struct Slab {
  char *memory;
  void *mapped;
  size_t size, used, mapped_size;
  int owners;
};

static Slab *open_slab;

static Slab *new_slab(size_t bytes) {
  Slab *slab = calloc(1, sizeof *slab);
  if (!slab) return NULL;
  slab->size = (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
#if defined(__linux__)
  slab->mapped_size = slab->size + HUGE_PAGE;
  slab->mapped = mmap(NULL, slab->mapped_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (slab->mapped == MAP_FAILED) { free(slab); return NULL; }
  slab->memory = (char *)(((uintptr_t)slab->mapped + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
#if defined(MADV_HUGEPAGE)
  /* Each is a wish: older kernels refuse, and the memory is good all the same. */
  if (!madvise(slab->memory, slab->size, MADV_HUGEPAGE) &&
      !madvise(slab->memory, slab->size, MADV_POPULATE_WRITE))
    madvise(slab->memory, slab->size, MADV_COLLAPSE);
#endif
#else
  slab->mapped = slab->memory = aligned_alloc(4096, slab->size);
  if (!slab->memory) { free(slab); return NULL; }
#endif
  return slab;
}

void sonant_leave(Slab *slab) {
#pragma omp critical(sonant_slabs)
  if (slab && --slab->owners == 0) {
    if (slab == open_slab) open_slab = NULL;
#if defined(__linux__)
    munmap(slab->mapped, slab->mapped_size);
#else
    free(slab->mapped);
#endif
    free(slab);
  }
}

void *sonant_take(size_t bytes, Slab **owner) {
  void *taken = NULL;
  bytes = (bytes + 4095) / 4096 * 4096;
#pragma omp critical(sonant_slabs)
  {
    Slab *slab = open_slab;
    if (!slab || slab->used + bytes > slab->size) {
      slab = new_slab(bytes > SLAB ? bytes : SLAB);
      if (slab) open_slab = slab;
    }
    if (slab) {
      taken = slab->memory + slab->used;
      slab->used += bytes;
      slab->owners++;
    }
    *owner = slab;
  }
  return taken;
}
