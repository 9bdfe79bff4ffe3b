package probes

import (
	"bytes"
	"fmt"
	"maps"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/tollwire/tollwire/flow"
)

// perCPU is how the kernel's compiler has the private stack's address: add %gs:…, %r9.
var perCPU = []byte{0x65, 0x4c, 0x03, 0x0c, 0x25}

// TestOwnStacks: where the kernel gives large programs a stack for each CPU, those of
// uprobes have the task's.
func TestOwnStacks(t *testing.T) {
	anyWay(t)
	needRoot(t)
	// The matrix has it pass from 6.13 on, so that neither skip hides anything.
	if !hasPrivateStacks() || runtime.GOARCH != "amd64" {
		t.Skip("there are no private stacks, or none that are known here")
	}
	spec, err := loadOpenssl()
	if err != nil {
		t.Fatal(err)
	}
	spec.Maps[coreMapRings].InnerMap = &ebpf.MapSpec{Type: ebpf.RingBuf, MaxEntries: 1 << 20}
	ours := make(map[string]*ebpf.Program)
	for name := range spec.Programs {
		ours[name] = start(t, Config{}).taps.programs[name]
	}
	maps.DeleteFunc(spec.Programs, func(name string, _ *ebpf.ProgramSpec) bool { return name != "openssl_return" }) // the others are shorter, or the like
	plain, err := ebpf.NewCollection(spec)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	for own, programs := range map[bool]map[string]*ebpf.Program{false: plain.Programs, true: ours} {
		private := 0
		for _, p := range programs {
			info, err := p.Info()
			if err != nil {
				t.Fatal(err)
			}
			code, ok := info.JitedInsns()
			if !ok || len(code) == 0 {
				t.Skip("the programs are not compiled here")
			}
			private += bytes.Count(code, perCPU)
		}
		if own != (private == 0) {
			t.Errorf("own stacks %v: the CPU's own is used %d times", own, private)
		}
	}
}

// TestPreempted: programs of one CPU that are in the same calls at once are kept apart, also
// where the kernel takes the CPU from one in the middle of a probe.
func TestPreempted(t *testing.T) {
	anyWay(t)
	const programs, size, calls = 4, 256, 2000
	c := start(t, Config{})
	url, ca := server(t, true)
	c.known(url, ca) // the loops' library is this program's
	var loops sync.WaitGroup
	fill := func(i int) string { return fmt.Sprintf("<program-%d>", i) }
	for i := range programs {
		l := startLooper(t)
		loops.Go(func() {
			if _, err := l.ask(load{kind: "exchange", size: size, calls: calls, fill: fill(i)}); err != nil {
				t.Error(err)
			}
		})
	}
	loops.Wait()
	for i := range programs {
		message := func(head string) string { return head + strings.Repeat(fill(i), size)[len(head):size] }
		request, answer := message("POST /v1/chat/completions HTTP/1.1\r\n"), message("HTTP/1.1 200 OK\r\n")
		for _, end := range [][2]string{{flow.Write: request, flow.Read: answer}, {flow.Write: answer, flow.Read: request}} {
			c.of(c.one(flow.Write, end[flow.Write]), flow.Read) // once all is there
			for dir, one := range end {
				got, want := c.one(flow.Dir(dir), one), []byte(strings.Repeat(one, calls/2))
				if got.source != flow.SourceOpenSSL || got.late || got.gap != 0 || !bytes.Equal(got.bytes, want) {
					t.Errorf("%v of %q: source %v, late %v, gap %d, %d bytes, want %d", flow.Dir(dir), one[:64],
						got.source, got.late, got.gap, len(got.bytes), len(want))
				}
			}
		}
	}
}
