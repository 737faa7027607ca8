#ifndef USDTKIT_UAPI_IF_PACKET_H
#define USDTKIT_UAPI_IF_PACKET_H

#include <linux/types.h>

#endif
