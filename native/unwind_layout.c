/* A table → where its rows lie for the walker in the kernel, and which rows each page has; unwind.h says how. */

#include "unwind_reader.h"

enum { CHUNK = 1 << USDTKIT_CHUNK_BITS };

int usdtkit_unwind_lay(const usdtkit_unwind_row *rows, uint32_t row_count, const uint32_t *index,
                       usdtkit_unwind_page *pages, uint32_t count, uint32_t next, usdtkit_unwind_copy *copies,
                       int most) {
  usdtkit_unwind_copy *copy = NULL;
  int copied = 0;
  for (uint32_t page = 0; page < count; page++) {
    uint32_t first = index[page], last = index[page + 1];
    if (first > last || last >= row_count) return -EINVAL;
    if (last > first && rows[last].address >= (uint64_t)(page + 1) << PAGE_BITS) last--; /* it begins the next page */
    uint32_t size = last - first + 1;
    if (size > USDTKIT_PAGE_MOST) return -EINVAL;
    if (!copy || copy->to % CHUNK + (last + 1 - copy->row) > CHUNK) {
      if (copy) next = copy->to + copy->count;
      if (next % CHUNK + size > CHUNK) next = (next / CHUNK + 1) * CHUNK;
      if (copied == most) return -ENOSPC;
      copy = &copies[copied++];
      *copy = (usdtkit_unwind_copy){.row = first, .to = next};
    }
    copy->count = last + 1 - copy->row;
    pages[page] = (usdtkit_unwind_page){.row = copy->to + (first - copy->row), .count = size};
  }
  return copied;
}
