/* What the programs need of the kernel's interface: nothing here depends on the kernel's version or on its types (BTF). */
#ifndef FLANNEL_KERNEL_H
#define FLANNEL_KERNEL_H

#include <linux/types.h>
#include <linux/bpf.h>

#define SEC(name) __attribute__((section(name), used))
#define inline static inline __attribute__((always_inline))

/* Definitions of maps, as loaders read them from the object's types. */
#define map_uint(name, value) int (*name)[value]
#define map_type(name, value) typeof(value) *name

static void *(*map_lookup)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static long (*pull_data)(struct __sk_buff *skb, __u32 len) = (void *)BPF_FUNC_skb_pull_data;
static long (*adjust_room)(struct __sk_buff *skb, __s32 diff, __u32 mode, __u64 flags) =
	(void *)BPF_FUNC_skb_adjust_room;
static long (*change_head)(struct __sk_buff *skb, __u32 len, __u64 flags) = (void *)BPF_FUNC_skb_change_head;
static long (*fib_lookup)(struct __sk_buff *skb, struct bpf_fib_lookup *params, int size, __u32 flags) =
	(void *)BPF_FUNC_fib_lookup;
static long (*redirect)(__u32 link, __u64 flags) = (void *)BPF_FUNC_redirect;
static long (*redirect_neigh)(__u32 link, struct bpf_redir_neigh *hop, int size, __u64 flags) =
	(void *)BPF_FUNC_redirect_neigh;

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define net16(x) __builtin_bswap16(x)
#define net32(x) __builtin_bswap32(x)
#else
#define net16(x) (x)
#define net32(x) (x)
#endif

struct ethernet {
	__u8 to[6], from[6];
	__be16 protocol;
};

struct ipv4 {
	__u8 version_size; /* size of the header in words of 4 bytes */
	__u8 tos;
	__be16 total;
	__be16 id;
	__be16 fragment;
	__u8 ttl, protocol;
	__be16 checksum;
	__be32 from, to;
};

struct udp {
	__be16 from, to, size, checksum;
};

#endif
