/* The reader of native/unwind.h over sections of standard input. Each is "KIND AARCH64 ADDRESS LOWEST START END SIZE\n"
   and so many bytes, which lie in memory of exactly that size, so that a sanitiser sees what is read beside them. The
   code is from START to END. For each section it prints "RESULT ROWS COUNTED MICROSECONDS", the time being that of the
   processor. It aborts if a table is not as unwind.h promises. */
#include "unwind.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void check(int holds, const char *what) {
  if (holds) return;
  fprintf(stderr, "%s\n", what);
  abort();
}

/* Each page's rows are those that the index says, in one chunk, and were copied before. */
static void check_layout(const usdtkit_unwind_table *table, const uint32_t *index, uint32_t pages, uint32_t next) {
  enum { CHUNK = 1 << USDTKIT_CHUNK_BITS };
  int most = (int)(table->count / (CHUNK - USDTKIT_PAGE_MOST)) + 2, at = 0;
  usdtkit_unwind_copy *copies = malloc(most * sizeof *copies);
  usdtkit_unwind_page *laid = malloc(pages * sizeof *laid);
  int count = usdtkit_unwind_lay(table->rows, (uint32_t)table->count, index, laid, pages, next, copies, most);
  check(count >= 0, "it cannot be laid out");
  for (int n = 0; n < count; n++) {
    const usdtkit_unwind_copy *copy = &copies[n];
    check(copy->count > 0 && (uint64_t)copy->row + copy->count <= table->count, "what is copied is no row");
    check(copy->to >= next && copy->to / CHUNK == (copy->to + copy->count - 1) / CHUNK, "a copy is in two chunks");
    next = copy->to + copy->count;
  }
  for (uint32_t page = 0; page < pages; page++) {
    while (at < count && laid[page].row >= copies[at].to + copies[at].count) at++;
    check(at < count && laid[page].row >= copies[at].to, "a page has rows that are not there");
    check(laid[page].row + laid[page].count <= copies[at].to + copies[at].count, "a page has more rows");
    uint64_t first = copies[at].row + (laid[page].row - copies[at].to), end = first + laid[page].count;
    check(first == index[page] && end > first, "a page has other rows");
    check(table->rows[end - 1].address < (uint64_t)(page + 1) * 4096, "its last row is behind it");
    check(end == table->count || table->rows[end].address >= (uint64_t)(page + 1) * 4096, "a row is missing");
  }
  free(laid);
  free(copies);
}

static void check_table(const usdtkit_unwind_source *source, const usdtkit_unwind_table *table) {
  const usdtkit_unwind_row *rows = table->rows;
  check(table->count > 0 && rows[0].address == 0, "the first row is not at the lowest address");
  check(rows[table->count - 1].kinds == USDTKIT_FRAME_NONE, "the last row says something");
  for (uint64_t n = 0; n < table->count; n++) {
    check((rows[n].kinds & 15) <= USDTKIT_FRAME_OTHER && rows[n].kinds >> 4 <= USDTKIT_SAVED_RA_HIGH, "unknown kinds");
    if (!n) continue;
    check(rows[n].address > rows[n - 1].address, "the addresses are out of order");
    check(memcmp(&rows[n].offset, &rows[n - 1].offset, 4) != 0, "two rows say the same");
    check(rows[n].address <= source->code->end - source->lowest + 1, "a row lies behind the code");
  }
  uint32_t pages = (uint32_t)((source->code->end - source->lowest + 4095) / 4096) + 1;
  uint32_t *index = malloc(pages * sizeof *index);
  usdtkit_unwind_index(table, index, pages);
  for (uint32_t page = 0; page < pages; page++) {
    uint32_t row = index[page];
    check(row < table->count && rows[row].address <= (uint64_t)page * 4096, "the index is too high");
    check(row + 1 == table->count || rows[row + 1].address > (uint64_t)page * 4096, "the index is too low");
  }
  for (uint32_t next = 0; next < 3u << USDTKIT_CHUNK_BITS; next += 32749) check_layout(table, index, pages - 1, next);
  free(index);
}

int main(void) {
  unsigned kind, aarch64;
  usdtkit_unwind_code code;
  usdtkit_unwind_section section;
  usdtkit_unwind_source source = {.sections = &section, .section_count = 1, .code = &code, .code_count = 1};
  while (scanf("%u %u %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64, &kind, &aarch64, &section.address,
               &source.lowest, &code.start, &code.end, &section.size) == 7) {
    getchar();
    uint8_t *data = malloc(section.size);
    if (fread(data, 1, section.size, stdin) != section.size) return 3;
    section.data = data;
    section.kind = kind;
    source.aarch64 = aarch64;
    usdtkit_unwind_table table;
    clock_t started = clock();
    int result = usdtkit_unwind_read(&source, &table);
    clock_t took = clock() - started;
    uint64_t counted = 0;
    for (unsigned n = 1; n < USDTKIT_COUNTS; n++) counted += table.counts[n];
    if (!result) check_table(&source, &table);
    printf("%d %" PRIu64 " %" PRIu64 " %ld\n", result, table.count, counted, (long)(took / (CLOCKS_PER_SEC / 1000000)));
    usdtkit_unwind_free(&table);
    free(data);
  }
  return 0;
}
