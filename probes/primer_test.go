package probes

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
)

// TestPrimer: a probe that is put somewhere right behind the primer's need not wait as the
// first one after a pause.
func TestPrimer(t *testing.T) {
	needRoot(t)
	if err := features.HaveBPFLinkUprobeMulti(); err != nil {
		t.Skipf("needs Linux 6.6: %v", err)
	}
	p, err := newPrimer()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	prog, err := nothing(ebpf.Kprobe, ebpf.AttachTraceUprobeMulti, "")
	if err != nil {
		t.Fatal(err)
	}
	defer prog.Close()
	ex, err := link.OpenExecutable("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	attach := func(before time.Duration) time.Duration {
		t.Helper()
		time.Sleep(300 * time.Millisecond)
		if before > 0 {
			p.prime()
			time.Sleep(before)
		}
		began := time.Now()
		l, err := ex.UprobeMulti(nil, prog, &link.UprobeMultiOptions{Addresses: []uint64{64}})
		took := time.Since(began)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return took
	}
	median := func(before time.Duration) time.Duration {
		var all []time.Duration
		for range 9 {
			all = append(all, attach(before))
		}
		slices.Sort(all)
		return all[4]
	}
	cold := median(0)
	primed := median(max(20*time.Millisecond, 3*cold)) // a grace period; the probe's end is another
	t.Logf("to attach takes %v, primed %v", cold, primed)
	if primed > max(cold/2, time.Millisecond) {
		t.Errorf("primed %v, else %v", primed, cold)
	}
}
