#ifndef USDTKIT_UAPI_IF_ETHER_H
#define USDTKIT_UAPI_IF_ETHER_H

#include <linux/types.h>

#endif
