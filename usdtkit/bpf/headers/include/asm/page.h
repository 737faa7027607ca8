#ifndef USDTKIT_PAGE_H
#define USDTKIT_PAGE_H

#define PAGE_SHIFT 12
#define PAGE_SIZE (1UL << PAGE_SHIFT)

#endif
