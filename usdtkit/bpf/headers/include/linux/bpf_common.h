#ifndef USDTKIT_BPF_COMMON_H
#define USDTKIT_BPF_COMMON_H

#include <linux/types.h>

#endif
