#ifndef USDTKIT_UAPI_BPF_H
#define USDTKIT_UAPI_BPF_H

#include <linux/types.h>

#endif
