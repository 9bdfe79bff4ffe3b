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
	ended := make(chan error)
	go func() { ended <- p.run(ctx) }()
	prog, err := nothing(ebpf.Kprobe, ebpf.AttachTraceUprobeMulti, "")
	if err != nil {
		t.Fatal(err)
	}
	defer prog.Close()
	ex, err := link.OpenExecutable("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	attach := func(primed bool) time.Duration {
		t.Helper()
		time.Sleep(300 * time.Millisecond)
		if primed {
			p.prime()
			time.Sleep(20 * time.Millisecond) // a grace period; the probe's end is another
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
	var cold, primed []time.Duration
	for range 9 {
		cold, primed = append(cold, attach(false)), append(primed, attach(true))
	}
	slices.Sort(cold)
	slices.Sort(primed)
	t.Logf("to attach takes %v, primed %v", cold[4], primed[4])
	if primed[4] > max(cold[4]/2, time.Millisecond) {
		t.Errorf("primed %v, else %v", primed, cold)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
