//go:build ignore

// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * The two programs that carry packets of the udp backend inside the kernel.
 *
 * pods ─▶ routing, netfilter ─▶ device: send ─▶ outer headers put on ─▶ neighbour, underlay
 * pods ◀─ routing, netfilter ◀─ device ◀─ outer headers taken off ◀─ underlay: receive
 *
 * What a program does not know for sure it leaves as it is, and the process in user space gets it as it would without
 * the program. Nothing is dropped here, and no ICMP error made, but for a packet that no memory is left for.
 *
 * Packets that are sent here have no outer checksum, which IPv4 allows, and those that arrive here have none either: the
 * sockets of user space send and take those that have one. So both ends of a flow are on the same path, and the kernel
 * does not merge datagrams for the sockets (UDP_GRO) that are meant for a program.
 */
#include "kernel.h"

#define PACKET_HOST 0
#define PROTO_IPV4 0x0800
#define PROTO_TCP 6
#define PROTO_UDP 17
#define FAMILY_IPV4 2 /* AF_INET */
#define LOOPBACK 1    /* its number in every network namespace */
#define PASS -1       /* TC_ACT_UNSPEC: the next filter, if there is one */
#define DROP 2        /* TC_ACT_SHOT */

#define PLAIN 0x45        /* IPv4 without options */
#define FRAGMENT 0x3fff   /* more fragments, or not the first one */
#define DONT_FRAGMENT 0x4000
#define TTL 64
#define ECN 3
#define UNMARKED 0
#define ECT1 1
#define ECT0 2
#define CE 3

#define HEADERS (sizeof(struct ipv4) + sizeof(struct udp))
#define LARGEST 65535

/* The constants that a host's programs are loaded with, addresses in network byte order. */
volatile const __u32 device;     /* number of the TUN device */
volatile const __u32 underlay;   /* number of the underlay's link */
volatile const __be32 local;     /* the address that packets are sent from and arrive at */
volatile const __be32 own;       /* the address of the host, that no peer may use inside */
volatile const __be16 port;      /* of all hosts */
volatile const __be32 self;      /* subnet of this host */
volatile const __be32 self_mask;
volatile const __be32 network;
volatile const __be32 network_mask;

/* The counters. Their names are in counters.go. */
enum {
	SENT_PACKETS,
	SENT_BYTES,
	RECEIVED_PACKETS,
	RECEIVED_BYTES,
	DROP_MEMORY,
	SEND_HEADER,
	SEND_EXPIRED,
	SEND_UNKNOWN,
	SEND_PEER,
	SEND_SIZE,
	SEND_ROUTE,
	SEND_ROOM,
	RECEIVE_CHECKSUM,
	RECEIVE_HEADER,
	RECEIVE_SENDER,
	RECEIVE_SOURCE,
	RECEIVE_DESTINATION,
	RECEIVE_CONGESTION,
	RECEIVE_ROOM,
	COUNTERS,
};

struct {
	map_uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	map_uint(max_entries, COUNTERS);
	map_type(key, __u32);
	map_type(value, __u64);
} counters SEC(".maps");

/* prefix is a subnet: the leading bits of addr. */
struct prefix {
	__u32 bits;
	__be32 addr;
};

/* route is the way to a subnet. */
struct route {
	__be32 host;  /* public address of the peer */
	__u32 kernel; /* the peer takes what this program sends */
	__u32 used;   /* packets were sent; user space resets it */
};

struct {
	map_uint(type, BPF_MAP_TYPE_LPM_TRIE);
	map_uint(map_flags, BPF_F_NO_PREALLOC);
	map_uint(max_entries, 65536);
	map_type(key, struct prefix);
	map_type(value, struct route);
} routes SEC(".maps");

/* hosts has the public address of the peer whose packets come from an underlay address. */
struct {
	map_uint(type, BPF_MAP_TYPE_HASH);
	map_uint(map_flags, BPF_F_NO_PREALLOC);
	map_uint(max_entries, 65536);
	map_type(key, __be32);
	map_type(value, __be32);
} hosts SEC(".maps");

/* traffic is what was sent to a peer and received from it. */
struct traffic {
	__u64 sent_packets;
	__u64 sent_bytes;
	__u64 received_packets;
	__u64 received_bytes;
};

/* peers has the traffic of each peer that is known, by its public address; each processor has numbers of its own. */
struct {
	map_uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	map_uint(map_flags, BPF_F_NO_PREALLOC);
	map_uint(max_entries, 65536);
	map_type(key, __be32);
	map_type(value, struct traffic);
} peers SEC(".maps");

inline void count(__u32 what, __u64 n)
{
	__u64 *value = map_lookup(&counters, &what);

	if (value)
		*value += n;
}

inline void count_sent(__be32 host, __u64 n, __u32 bytes)
{
	struct traffic *peer = map_lookup(&peers, &host);

	count(SENT_PACKETS, n);
	count(SENT_BYTES, bytes);
	if (peer) {
		peer->sent_packets += n;
		peer->sent_bytes += bytes;
	}
}

inline void count_received(__be32 host, __u64 n, __u32 bytes)
{
	struct traffic *peer = map_lookup(&peers, &host);

	count(RECEIVED_PACKETS, n);
	count(RECEIVED_BYTES, bytes);
	if (peer) {
		peer->received_packets += n;
		peer->received_bytes += bytes;
	}
}

inline int leave(__u32 why)
{
	count(why, 1);
	return PASS;
}

inline struct route *route_to(__be32 addr)
{
	struct prefix key = { 32, addr };

	return map_lookup(&routes, &key);
}

inline __u32 fold(__u32 sum)
{
	sum = (sum >> 16) + (sum & 0xffff);
	return (sum >> 16) + (sum & 0xffff);
}

/* sum_header returns the ones' complement sum of a header without options, 0xffff if its checksum is right. */
inline __u32 sum_header(const struct ipv4 *ip)
{
	const __u16 *words = (const __u16 *)ip;
	__u32 sum = 0;

#pragma unroll
	for (int i = 0; i < 10; i++)
		sum += words[i];
	return fold(sum);
}

/* replace updates the checksum of a header in which one word has changed (RFC 1624, equation 3). */
inline void replace(struct ipv4 *ip, __u16 from, __u16 to)
{
	ip->checksum = ~fold((__u16)~ip->checksum + (__u16)~from + to);
}

/* headers returns the size of the headers that each of the packets has that a packet stands for; 0: not known. */
inline __u32 headers_of(const struct ipv4 *ip, const void *end)
{
	const __u8 *transport = (const void *)(ip + 1);

	if (ip->protocol == PROTO_UDP)
		return HEADERS;
	if (ip->protocol != PROTO_TCP || (const void *)(transport + 20) > end)
		return 0;
	return sizeof(*ip) + (transport[12] >> 4) * 4;
}

/* packets returns how many packets a packet of a size stands for. */
inline __u64 packets(struct __sk_buff *skb, __u32 size, __u32 headers)
{
	if (!skb->gso_size || size <= headers)
		return 1;
	return (size - headers + skb->gso_size - 1) / skb->gso_size;
}

/* find asks the kernel how it would send a packet of our socket to a host. */
inline int find(struct __sk_buff *skb, struct bpf_fib_lookup *way, __be32 host, __u32 size)
{
	long got;

	way->family = FAMILY_IPV4;
	way->l4_protocol = PROTO_UDP;
	way->sport = way->dport = port;
	way->tot_len = size + HEADERS;
	way->ifindex = LOOPBACK; /* as the kernel sees packets of its own */
	way->ipv4_src = local;
	way->ipv4_dst = host;
	got = fib_lookup(skb, way, sizeof(*way), 0);
	return (got == BPF_FIB_LKUP_RET_SUCCESS || got == BPF_FIB_LKUP_RET_NO_NEIGH) && way->family == FAMILY_IPV4 &&
	       way->ifindex == underlay;
}

/* put writes the outer headers and takes one off the TTL of the packet behind them. */
inline int put(struct __sk_buff *skb, __be32 host, __u32 size, __u8 ecn)
{
	struct ipv4 *ip = (void *)(long)skb->data, *inner;
	struct udp *udp = (void *)(ip + 1);
	__u16 before;

	inner = (void *)(udp + 1);
	if ((void *)(inner + 1) > (void *)(long)skb->data_end)
		return 0;
	before = *(__u16 *)&inner->ttl;
	inner->ttl--;
	replace(inner, before, *(__u16 *)&inner->ttl);
	ip->version_size = PLAIN;
	ip->tos = ecn;
	ip->total = net16(size + HEADERS);
	ip->id = 0;
	ip->fragment = net16(DONT_FRAGMENT);
	ip->ttl = TTL;
	ip->protocol = PROTO_UDP;
	ip->checksum = 0;
	ip->from = local;
	ip->to = host;
	ip->checksum = ~sum_header(ip);
	udp->from = udp->to = port;
	udp->size = net16(size + sizeof(*udp));
	udp->checksum = 0;
	return 1;
}

/* send is at the egress of the device, whose packets begin with the IP header. */
SEC("tc")
int send(struct __sk_buff *skb)
{
	const __u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP |
			    BPF_F_ADJ_ROOM_NO_CSUM_RESET;
	struct ipv4 *ip = (void *)(long)skb->data;
	void *end = (void *)(long)skb->data_end;
	struct bpf_redir_neigh hop = {};
	struct bpf_fib_lookup way = {};
	struct route *to;
	__u32 size, largest, headers;
	__be32 host;
	__u64 n;
	__u8 ecn;

	if (skb->protocol != net16(PROTO_IPV4))
		return PASS;
	if ((void *)(ip + 1) > end || ip->version_size != PLAIN || net16(ip->total) != skb->len)
		return leave(SEND_HEADER);
	if (ip->ttl <= 1)
		return leave(SEND_EXPIRED);
	to = route_to(ip->to);
	if (!to)
		return leave(SEND_UNKNOWN);
	if (!to->kernel)
		return leave(SEND_PEER);
	size = largest = skb->len;
	headers = headers_of(ip, end);
	if (skb->gso_size)
		largest = headers + skb->gso_size;
	if (size > LARGEST - HEADERS || largest > LARGEST - HEADERS || (skb->gso_size && !headers))
		return leave(SEND_SIZE);
	host = to->host;
	if (!find(skb, &way, host, largest))
		return leave(SEND_ROUTE);
	ecn = ip->tos & ECN;
	n = packets(skb, size, headers);
	if (adjust_room(skb, HEADERS, BPF_ADJ_ROOM_MAC, flags))
		return leave(SEND_ROOM);
	/* What sends to the neighbour takes away an Ethernet header, and puts on another one. */
	if (!put(skb, host, size, ecn) || change_head(skb, sizeof(struct ethernet), 0)) {
		count(DROP_MEMORY, 1);
		return DROP;
	}
	if (!to->used)
		to->used = 1;
	count_sent(host, n, size);
	skb->mark = 0;
	hop.nh_family = FAMILY_IPV4;
	hop.ipv4_nh = way.ipv4_dst;
	return redirect_neigh(underlay, &hop, sizeof(hop), 0);
}

/* from_peer says why a packet of a host is not to be believed, given its public address; 0: it is. */
inline __u32 from_peer(__be32 host, const struct ipv4 *inner)
{
	struct route *back;

	if ((inner->to & self_mask) != self)
		return RECEIVE_DESTINATION;
	if (inner->from == local || inner->from == own)
		return RECEIVE_SOURCE;
	if ((inner->from & network_mask) == network) {
		back = route_to(inner->from);
		if (!back || back->host != host)
			return RECEIVE_SOURCE;
	}
	return 0;
}

/* carry_over takes the congestion mark of the outer header over (RFC 6040, section 4.2); 0: the packet must be dropped. */
inline int carry_over(__u8 outer, struct ipv4 *inner)
{
	__u16 *first = (__u16 *)inner, before = *first;
	__u8 mark = inner->tos & ECN;

	outer &= ECN;
	if (outer == CE && mark == UNMARKED)
		return 0;
	if ((outer == CE && mark != CE) || (outer == ECT1 && mark == ECT0)) {
		inner->tos = (inner->tos & ~ECN) | outer;
		replace(inner, before, *first);
	}
	return 1;
}

/* receive is at the ingress of the underlay's link, an Ethernet. */
SEC("tc")
int receive(struct __sk_buff *skb)
{
	const __u32 least = sizeof(struct ethernet) + HEADERS + sizeof(struct ipv4);
	struct ipv4 *ip, *inner;
	struct udp *udp;
	__u32 total, why;
	__be32 *peer, host;
	__u64 n;

	if (skb->protocol != net16(PROTO_IPV4) || skb->pkt_type != PACKET_HOST || skb->vlan_present || skb->len < least)
		return PASS;
	if ((void *)(long)skb->data + least > (void *)(long)skb->data_end && pull_data(skb, least))
		return PASS;
	ip = (void *)(long)skb->data + sizeof(struct ethernet);
	udp = (void *)(ip + 1);
	inner = (void *)(udp + 1);
	if ((void *)(inner + 1) > (void *)(long)skb->data_end)
		return PASS;
	if (ip->version_size != PLAIN || ip->protocol != PROTO_UDP || ip->to != local || udp->to != port ||
	    ip->fragment & net16(FRAGMENT))
		return PASS;
	if (udp->checksum)
		return leave(RECEIVE_CHECKSUM);
	total = net16(ip->total);
	if (sum_header(ip) != 0xffff || sizeof(struct ethernet) + total > skb->len ||
	    net16(udp->size) + sizeof(*ip) != total || inner->version_size != PLAIN ||
	    net16(inner->total) + HEADERS != total)
		return leave(RECEIVE_HEADER);
	host = ip->from;
	peer = map_lookup(&hosts, &host);
	if (!peer)
		return leave(RECEIVE_SENDER);
	host = *peer;
	why = from_peer(host, inner);
	if (why)
		return leave(why);
	n = packets(skb, total - HEADERS, headers_of(inner, (void *)(long)skb->data_end));
	if (!carry_over(ip->tos, inner))
		return leave(RECEIVE_CONGESTION);
	if (adjust_room(skb, -(__s32)HEADERS, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO))
		return leave(RECEIVE_ROOM);
	count_received(host, n, total - HEADERS);
	skb->mark = 0;
	return redirect(device, BPF_F_INGRESS);
}

char terms[] SEC("license") = "Dual BSD/GPL";
