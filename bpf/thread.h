// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// A thread's calls into TLS libraries, kept from their entry to their return.
#pragma once

#include "kernel.h"
#include "wire.h"
#include "maps.h"

static __always_inline __u32 place_of(__u64 id)
{
	return id & (PLACES - 1);
}

// What is kept of the thread; NULL when nothing is.
static __always_inline struct thread *find_thread(__u64 id)
{
	__u32 place = place_of(id);
	struct thread *t = bpf_map_lookup_elem(&places, &place);

	if (t && t->id == id)
		return t;
	return bpf_map_lookup_elem(&threads, &id);
}

static const struct thread no_calls;

// Begins to keep a thread that find_thread does not know; NULL when the map refuses.
static __noinline __attribute__((unused)) struct thread *new_thread(__u64 id)
{
	__u32 place = place_of(id);
	struct thread *t;

	if (!bpf_map_update_elem(&owners, &place, &id, BPF_NOEXIST)) {
		t = bpf_map_lookup_elem(&places, &place);
		if (t)
			t->id = id;
		return t;
	}
	bpf_map_update_elem(&threads, &id, &no_calls, BPF_ANY);
	return bpf_map_lookup_elem(&threads, &id);
}

// Forgets a thread that has ended.
static __always_inline void end_thread(__u64 id)
{
	__u32 place = place_of(id);
	struct thread *t = bpf_map_lookup_elem(&places, &place);

	if (t && t->id == id) {
		__builtin_memset(t, 0, sizeof(*t));
		bpf_map_delete_elem(&owners, &place);
	} else {
		bpf_map_delete_elem(&threads, &id);
	}
}
