package probes

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/tollwire/tollwire/flow"
)

// load is what the looping program is asked for.
type load struct {
	name, kind  string
	size, calls int
	fill        string // of its bytes; by default "."
}

var loads = []load{
	{name: "256B", kind: "exchange", size: 256, calls: 3000},
	{name: "4KiB", kind: "exchange", size: 4 << 10, calls: 2000},
	{name: "16KiB", kind: "exchange", size: 16 << 10, calls: 1000},
	{name: "ignored", kind: "ignored", size: 256, calls: 3000},
}

// looper is testdata/sslloop.c, running.
type looper struct {
	testing.TB
	in  *os.File
	out *bufio.Scanner
}

func startLooper(b testing.TB) *looper {
	bin := compile(b, "sslloop", "-lssl", "-lcrypto")
	r, in, err := os.Pipe()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(bin)
	cmd.Stdin, cmd.Stderr = r, os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	r.Close()
	b.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			b.Error(err)
		}
	})
	return &looper{b, in, bufio.NewScanner(out)}
}

// ask returns the nanoseconds of one SSL_write and one SSL_read.
func (l *looper) ask(w load) (ns float64, err error) {
	fmt.Fprintf(l.in, "%s %d %d %s\n", w.kind, w.size, w.calls, cmp.Or(w.fill, "."))
	if !l.out.Scan() {
		return 0, errors.New("the looping program has ended")
	}
	_, err = fmt.Sscan(l.out.Text(), &ns)
	return ns, err
}

// run is ask, or the test's end.
func (l *looper) run(w load) float64 {
	ns, err := l.ask(w)
	if err != nil {
		l.Fatal(err)
	}
	return ns
}

// floor attaches what every agent pays: an empty uprobe and an empty uretprobe at
// the entries of SSL_write and SSL_read.
func floor(b *testing.B, lib *os.File, multi bool) (empty *ebpf.Program, detach func()) {
	spec := &ebpf.ProgramSpec{Type: ebpf.Kprobe, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}}
	if multi {
		spec.AttachType = ebpf.AttachTraceUprobeMulti
	}
	prog, err := ebpf.NewProgram(spec)
	if err != nil {
		b.Fatal(err)
	}
	ex, err := link.OpenExecutable(lib.Name())
	if err != nil {
		b.Fatal(err)
	}
	var links []link.Link
	attach := func(l link.Link, err error) {
		if err != nil {
			b.Fatal(err)
		}
		links = append(links, l)
	}
	if multi {
		attach(ex.UprobeMulti([]string{"SSL_write", "SSL_read"}, prog, nil))
		attach(ex.UretprobeMulti([]string{"SSL_write", "SSL_read"}, prog, nil))
	} else {
		for _, name := range []string{"SSL_write", "SSL_read"} {
			attach(ex.Uprobe(name, prog, nil))
			attach(ex.Uretprobe(name, prog, nil))
		}
	}
	return prog, func() {
		for _, l := range links {
			l.Close()
		}
		prog.Close()
	}
}

// BenchmarkOpenSSL compares what the tap adds to a call with what the floor adds,
// round by round, so that the machine's moods meet both. An iteration is a round.
// In rounds of their own the kernel counts the time inside the tap's programs, and what
// the counting itself costs: the time inside the floor's, which do nothing.
func BenchmarkOpenSSL(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("attaches, and so needs root")
	}
	path, err := filepath.EvalSymlinks(strings.TrimSpace(output(b, "sh", "-c", "ldconfig -p | awk '/libssl.so.3 /{print $NF; exit}'")))
	if err != nil {
		b.Fatal(err)
	}
	lib, target := targetIn(b, path)
	taps := unattached(b)
	defer taps.Close()
	for i := range taps.Shards() {
		go func() {
			var d flow.Data
			for taps.Read(i, &d) == nil {
			}
		}()
	}
	ours := func() (detach func()) {
		links, err := taps.attachFile(lib, target)
		if err != nil {
			b.Fatal(err)
		}
		return func() {
			for _, l := range links {
				l.Close()
			}
		}
	}
	l := startLooper(b)
	variants := []func() func(){
		func() func() { return func() {} },
		func() func() { _, detach := floor(b, lib, taps.multi); return detach },
		ours,
	}
	times := make([][3][]float64, len(loads))
	inside, counting := make([][]float64, len(loads)), make([][]float64, len(loads))
	for round := range b.N {
		for i := range variants {
			v := (round + i) % len(variants)
			detach := variants[v]()
			for j, w := range loads {
				times[j][v] = append(times[j][v], l.run(w))
			}
			detach()
		}
		stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
		if err != nil {
			b.Fatal(err)
		}
		timed := func(w load, programs ...*ebpf.Program) float64 {
			before := timeInside(b, programs)
			l.run(w)
			return float64(timeInside(b, programs)-before) / float64(2*w.calls)
		}
		detach := ours()
		for j, w := range loads {
			inside[j] = append(inside[j], timed(w, slices.Collect(maps.Values(taps.programs))...))
		}
		detach()
		empty, detach := floor(b, lib, taps.multi)
		for j, w := range loads {
			counting[j] = append(counting[j], timed(w, empty))
		}
		detach()
		stats.Close()
	}
	added := func(j, v int) float64 {
		diff := make([]float64, b.N)
		for i := range diff {
			diff[i] = times[j][v][i] - times[j][0][i]
		}
		return median(diff) / 2
	}
	for j, w := range loads {
		b.ReportMetric(added(j, 2)/added(j, 1), w.name+"-of-floor")
		b.ReportMetric(added(j, 1), w.name+"-floor-ns/call")
		b.ReportMetric(added(j, 2), w.name+"-added-ns/call")
		b.ReportMetric(median(inside[j]), w.name+"-inside-ns/call")
		b.ReportMetric(median(counting[j]), w.name+"-counting-ns/call")
	}
	b.ReportMetric(0, "ns/op")
}

// timeInside is the time inside of programs so far, in ns.
func timeInside(b *testing.B, programs []*ebpf.Program) (sum int64) {
	for _, p := range programs {
		s, err := p.Stats()
		if err != nil {
			b.Fatal(err)
		}
		sum += int64(s.Runtime)
	}
	return sum
}

func median(v []float64) float64 {
	v = slices.Clone(v)
	slices.SortFunc(v, cmp.Compare[float64])
	return v[len(v)/2]
}

func output(b *testing.B, name string, args ...string) string {
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		b.Fatal(err)
	}
	return string(out)
}

// unattached loads the taps' programs and attaches none.
func unattached(b *testing.B) *Taps {
	cfg := Config{Sockets: "off"}
	if err := cfg.setDefaults(); err != nil {
		b.Fatal(err)
	}
	t := newTaps(cfg)
	if err := t.load(); err != nil {
		b.Fatal(err)
	}
	return t
}
