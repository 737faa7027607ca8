/* Call frame information → rows: unwind.h describes them, unwind_reader.h the files that do the steps. The entries of a
 * section are read once, in its order. The ranges that they describe are sorted, and become rows. */

#include "unwind_reader.h"

enum { SHORTEST_GAP = 32 }; /* the padding between functions is shorter, and no code */

/* Sorts by where ranges start, 11 bits of that at a time. Those that start together stay in the order in which they
 * were read. */
static int sort_ranges(reader *r) {
  enum { BITS = 11, VALUES = 1 << BITS };
  uint64_t count = r->range_count, n = 1;
  while (n < count && r->ranges[n].start >= r->ranges[n - 1].start) n++;
  if (n >= count) return 0;
  range *from = r->ranges, *to = malloc(count * sizeof *to);
  if (!to) return -ENOMEM;
  for (unsigned shift = 0; shift < 32; shift += BITS) {
    uint32_t places[VALUES + 1] = {0};
    for (n = 0; n < count; n++) places[((from[n].start - r->source->lowest) >> shift) % VALUES + 1]++;
    for (n = 1; n < VALUES; n++) places[n] += places[n - 1];
    for (n = 0; n < count; n++) to[places[((from[n].start - r->source->lowest) >> shift) % VALUES]++] = from[n];
    range *sorted = to;
    to = from;
    from = sorted;
  }
  r->ranges = from;
  free(to);
  return 0;
}

static int make_rows(reader *r) {
  const usdtkit_unwind_row none = {.kinds = USDTKIT_FRAME_NONE};
  uint64_t end = r->source->lowest; /* of what has rows */
  int signal = 0, error = add_row(r, end, none);
  for (uint64_t n = 0; n < r->range_count && !error; n++) {
    const range *described = &r->ranges[n];
    if (described->start < end) {
      r->table->counts[USDTKIT_COUNT_OVERLAPPING]++;
      continue;
    }
    /* A thread can be seen behind the last instruction of a signal's frame, a system call that does not return. */
    if (described->start - end >= SHORTEST_GAP) error = add_row(r, end + (uint64_t)signal, none);
    if (!error) error = run_range(r, described);
    end = described->start + described->size;
    signal = r->commons[described->common].signal;
  }
  return error ? error : add_row(r, end + (uint64_t)signal, none);
}

int usdtkit_unwind_read(const usdtkit_unwind_source *source, usdtkit_unwind_table *table) {
  memset(table, 0, sizeof *table);
  reader r = {.source = source, .table = table, .sp = 7, .fp = 6, .ra = 16};
  if (source->aarch64) r.sp = 31, r.fp = 29, r.ra = 30;
  for (uint32_t n = 0; n < source->code_count; n++)
    if (source->code[n].start < source->lowest || source->code[n].end - source->lowest >= UINT32_MAX) return -ERANGE;
  int error = 0;
  for (uint32_t n = 0; n < source->section_count && !error; n++) {
    r.section = &source->sections[n];
    error = r.section->size > UINT32_MAX ? -E2BIG : read_commons(&r);
    if (!error) error = read_ranges(&r);
  }
  if (!error) error = sort_ranges(&r);
  if (!error) error = make_rows(&r);
  free(r.commons);
  free(r.ranges);
  if (error) usdtkit_unwind_free(table);
  return error;
}

void usdtkit_unwind_free(usdtkit_unwind_table *table) {
  free(table->rows);
  table->rows = NULL;
  table->count = 0;
}

void usdtkit_unwind_index(const usdtkit_unwind_table *table, uint32_t *index, uint32_t pages) {
  uint64_t row = 0;
  for (uint32_t page = 0; page < pages; page++) {
    while (row + 1 < table->count && table->rows[row + 1].address <= (uint64_t)page << PAGE_BITS) row++;
    index[page] = (uint32_t)row;
  }
}
