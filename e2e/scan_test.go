package e2e

import (
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/tollwire/tollwire/internal/clients"
	"github.com/tollwire/tollwire/internal/trial"
	"github.com/tollwire/tollwire/probes/signature"
)

// awaitLog returns once the agent's log has n lines with all of these words.
func (s *setup) awaitLog(a *trial.Agent, n int, wait time.Duration, words ...string) {
	s.Helper()
	have := 0
	for deadline := time.Now().Add(wait); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if have = lines(a.Log(), words...); have >= n {
			return
		}
	}
	s.Fatalf("%d lines of the log have %q, want %d", have, words, n)
}

func lines(log string, words ...string) (n int) {
	for line := range strings.Lines(log) {
		all := true
		for _, w := range words {
			all = all && strings.Contains(line, w)
		}
		if all {
			n++
		}
	}
	return n
}

// withCode is a program that has the code of a file inside, and a text and a label of TLS
// that go with it, and waits for its input to end.
const withCode = `
__asm__(".section .text\n.globl code\ncode: .incbin \"%s\"\n.section .rodata\n.string \"BoringSSL\"\n.string \"c hs traffic\"\n.text\n");
#include <unistd.h>
%s
int main(void) { char c; return read(0, &c, 1) < 0; }
`

// codeOf builds such a program at path.
func (s *setup) codeOf(file, path, more string) {
	s.Helper()
	source := path + ".c"
	if err := os.WriteFile(source, fmt.Appendf(nil, withCode, file, more), 0o644); err != nil {
		s.Fatal(err)
	}
	if out, err := exec.CommandContext(s.ctx, "gcc", "-rdynamic", "-Wl,--build-id", "-o", path, source).CombinedOutput(); err != nil {
		s.Fatalf("gcc: %v\n%s", err, out)
	}
}

// waits starts a program that waits for its input to end, as it does with the test. It
// returns what a line of the log has that is about its file.
func (s *setup) waits(path string) (words string) {
	s.Helper()
	cmd := exec.CommandContext(s.ctx, path)
	in, err := cmd.StdinPipe()
	if err != nil {
		s.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { in.Close(); cmd.Wait() })
	return "path=" + path + " "
}

// TestSameBuild: a copy of a program that is tapped is tapped without being looked through;
// what only says that it is the same build, and what carries more, is looked through.
func TestSameBuild(t *testing.T) {
	bun, s := bun(t), start(t)
	a, dir := s.agent("--log-level", "debug"), t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	s.codeOf(bun.Path, path("first"), "")
	program, err := os.ReadFile(path("first"))
	if err != nil {
		t.Fatal(err)
	}
	s.awaitLog(a, 1, 20*time.Second, `msg="looked through"`, s.waits(path("first")), "tapped=true")
	f, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		t.Fatal(err)
	}
	set, err := signature.Published()
	if err != nil {
		t.Fatal(err)
	}
	found, _, err := set.For(runtime.GOARCH).Find(bytes.NewReader(program), signature.Code(f), func(int) error { return nil })
	if err != nil || len(found) == 0 {
		t.Fatalf("%d functions, %v", len(found), err)
	}
	claims := bytes.Clone(program)
	clear(claims[found[0].Offset:][:16])
	for _, k := range []struct {
		name    string
		content []byte
		said    []string
		scans   int
	}{
		{"copy", program, []string{`msg="known by its build"`}, 0},
		{"longer", append(bytes.Clone(program), "a program"...), []string{`msg="looked through"`, "tapped=true"}, 1},
		{"claims", claims, []string{`msg="looked through"`, "tapped=false"}, 1},
	} {
		if err := os.WriteFile(path(k.name), k.content, 0o755); err != nil {
			t.Fatal(err)
		}
		words := s.waits(path(k.name))
		s.awaitLog(a, 1, 20*time.Second, append(k.said, words)...)
		if n := lines(a.Log(), `msg="looked through"`, words); n != k.scans {
			t.Errorf("%s was looked through %d times, want %d", k.name, n, k.scans)
		}
		wait, cancel := context.WithTimeout(s.ctx, 2*time.Second)
		defer cancel()
		if err := a.TappedFile(wait, path(k.name)); (err == nil) == (k.name == "claims") {
			t.Errorf("%s: %v", k.name, err)
		}
	}
}

// TestOneTapServes: a program that has the assembly and a named SSL_write too is read at
// SSL_write alone, and never looked through; the same program without the names is read
// at the assembly. What node and curl do is seen once.
func TestOneTapServes(t *testing.T) {
	bun, s := bun(t), start(t)
	a, dir := s.agent("--log-level", "debug"), t.TempDir()
	program := func(name, more string) string {
		path := filepath.Join(dir, name)
		s.codeOf(bun.Path, path, more)
		return s.waits(path)
	}
	named := program("named", "int SSL_read(void *s, void *b, int n) { return n; }\nint SSL_write(void *s, void *b, int n) { return -n; }")
	unnamed := program("unnamed", "")
	s.awaitLog(a, 1, 20*time.Second, `msg="looked through"`, unnamed, "tapped=true")
	s.awaitLog(a, 1, time.Second, "msg=tapped", named, "source=openssl")
	if n := lines(a.Log(), `msg="looked through"`, named); n != 0 {
		t.Errorf("the program with names was looked through %d times", n)
	}
	calls := both("tokens=10")
	for _, name := range []string{"node", "curl"} {
		s.finish(s.run(s.program(name), clients.Spec{BaseURL: s.sim.URL, CA: s.sim.CA, Calls: calls}))
	}
	for _, r := range of("client", s.matches(a, "client", 2*len(calls))) {
		if r.Source != "openssl" {
			t.Errorf("seen by %s", r.Source)
		}
	}
	m := s.scrape(a)
	for _, source := range []string{"aead.boringssl", "aead.aws-lc", "aead.ring"} {
		if n := m.Sum("tollwire_capture_bytes_total", "source", source); n != 0 {
			t.Errorf("%s saw %.0f bytes", source, n)
		}
	}
}

// How much of a node the look through large binaries may take, of programs that last a
// millisecond. It reads 200 MiB a second.
const (
	binaries   = 200
	binarySize = 16 << 20
	maxSlower  = 2
	maxCPU     = 20 * time.Second
	maxGrowth  = 64 << 20
	// Of a round in which all run once more, as some were too many at once.
	maxRoundCPU = time.Second
)

// TestNodeFullOfBinaries: large programs that are no TLS clients run as fast beside the
// agent as without it, are looked through once each, at a bounded cost, and a real client
// among them is tapped in time.
func TestNodeFullOfBinaries(t *testing.T) {
	bun, s := bun(t), start(t)
	dir := t.TempDir()
	for i := range 2 * binaries {
		if err := largeBinary(filepath.Join(dir, fmt.Sprint("program", i))); err != nil {
			t.Fatal(err)
		}
	}
	runAll := func(from int) time.Duration {
		began := time.Now()
		for i := range binaries {
			if err := exec.CommandContext(s.ctx, filepath.Join(dir, fmt.Sprint("program", from+i))).Run(); err != nil {
				t.Fatal(err)
			}
		}
		return time.Since(began)
	}
	runAll(0) // warms the caches
	without := min(runAll(0), runAll(0), runAll(0))
	a := s.agent("--log-level", "debug")
	cpu, memory := spent(t, a.PID())
	runAll(binaries)
	with := runAll(binaries)
	for range 10 { // a busy machine only ever adds
		if with = min(with, runAll(binaries)); with <= maxSlower*without {
			break
		}
	}
	s.finish(s.run(s.program("curl"), clients.Spec{BaseURL: s.sim.URL, CA: s.sim.CA, Calls: both("tokens=10")}))
	s.matches(a, "client", 4)
	began := time.Now()
	out, err := bun.Try(s.ctx, a, s.sim, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range out.Wrong {
		t.Error(w)
	}
	tapped := time.Since(began)
	rounds := 0
	for ; rounds < 20; rounds++ { // those that were too many at once are looked at when they run again
		if lines(a.Log(), `msg="looked through"`, dir) == binaries {
			break
		}
		runAll(binaries)
		time.Sleep(time.Second)
	}
	s.awaitLog(a, binaries, 20*time.Second, `msg="looked through"`, dir)
	runAll(binaries)
	time.Sleep(time.Second)
	if n := lines(a.Log(), `msg="looked through"`, dir); n != binaries {
		t.Errorf("looked through %d programs, want each of %d once", n, binaries)
	}
	cpuNow, memoryNow := spent(t, a.PID())
	t.Logf("%d programs of %d MiB: %v without the agent, %v with it, %.2fx; %v of CPU, %d rounds more, %d MiB more; a client with stripped TLS called after %v",
		binaries, binarySize>>20, without.Round(time.Millisecond), with.Round(time.Millisecond), with.Seconds()/without.Seconds(),
		cpuNow-cpu, rounds, (memoryNow-memory)>>20, tapped.Round(time.Millisecond))
	if with > maxSlower*without {
		t.Errorf("the programs take %v with the agent, %v without it", with, without)
	}
	if cpuNow-cpu > maxCPU+time.Duration(rounds)*maxRoundCPU {
		t.Errorf("the agent spent %v of CPU", cpuNow-cpu)
	}
	if memoryNow-memory > maxGrowth {
		t.Errorf("the agent's memory grew by %d bytes", memoryNow-memory)
	}
}

// largeBinary is true(1) with much behind it that is nothing.
func largeBinary(path string) error {
	program, err := os.ReadFile("/bin/true")
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(program); err != nil {
		return err
	}
	return f.Truncate(binarySize)
}

// spent returns a process' CPU time and the most memory that it has held, in bytes.
func spent(t *testing.T, pid int) (cpu time.Duration, memory int64) {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	var user, system, kib int64
	fmt.Sscan(fields[11]+" "+fields[12], &user, &system)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, peak, _ := strings.Cut(string(status), "VmHWM:")
	fmt.Sscan(peak, &kib)
	return time.Duration(user+system) * time.Second / 100, kib << 10
}
