// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// How far a TCP socket has come, by the kernel's own count: what was moved while no
// program was told of it is known by that.
#pragma once

#include "kernel.h"
#include "wire.h"

// Bytes that went through a TCP socket in one direction, to and from its program;
// a SYN or FIN counts as one.
static __always_inline __u64 moved(struct sock *sk, __u8 dir)
{
	struct tcp_sock *tp = (void *)sk;

	if (dir == DIR_READ) {
		__u32 waiting = BPF_CORE_READ(tp, rcv_nxt) - BPF_CORE_READ(tp, copied_seq);

		return BPF_CORE_READ(tp, bytes_received) - waiting;
	}
	__u32 under_way = BPF_CORE_READ(tp, write_seq) - BPF_CORE_READ(tp, snd_una);

	return BPF_CORE_READ(tp, bytes_acked) + under_way;
}

// Whether anything went through the socket before this call, which has moved n
// bytes by now. The socket itself knows, whichever process has opened it.
static __always_inline bool was_used(struct sock *sk, __u8 dir, __u64 n)
{
	if (BPF_CORE_READ(sk, sk_protocol) != IPPROTO_TCP) // MPTCP counts elsewhere
		return true;
	return moved(sk, dir) > n + 1 || moved(sk, !dir) > 1;
}

// Which states of TCP have numbers for both directions, and in which a FIN takes one.
enum {
	NUMBERED = 1 << TCP_ESTABLISHED | 1 << TCP_FIN_WAIT1 | 1 << TCP_FIN_WAIT2 |
		   1 << TCP_CLOSE_WAIT | 1 << TCP_LAST_ACK | 1 << TCP_CLOSING,
	FIN_SENT = 1 << TCP_FIN_WAIT1 | 1 << TCP_FIN_WAIT2 | 1 << TCP_LAST_ACK | 1 << TCP_CLOSING,
	FIN_CAME = 1 << TCP_CLOSE_WAIT | 1 << TCP_LAST_ACK | 1 << TCP_CLOSING,
};

// How far the program has come in one direction of a TCP stream; 0: not known.
static __always_inline __u32 sequence(struct sock *sk, __u8 dir)
{
	__u32 state = 1 << (BPF_CORE_READ(sk, __sk_common.skc_state) & 31), copied;
	struct tcp_sock *tp = (void *)sk;

	if (BPF_CORE_READ(sk, sk_protocol) != IPPROTO_TCP || !(state & NUMBERED))
		return 0;
	if (dir == DIR_WRITE)
		return BPF_CORE_READ(tp, write_seq) - !!(state & FIN_SENT);
	copied = BPF_CORE_READ(tp, copied_seq);
	return copied - (state & FIN_CAME && copied == BPF_CORE_READ(tp, rcv_nxt));
}

#define MAX_MISSED (1 << 28) // bytes; more is another stream on the same socket
