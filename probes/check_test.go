package probes_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tollwire/tollwire/probes"
)

// checkChild says which part of the report a child is to make.
const (
	checkChild = "CHECK_CHILD"
	whole      = "whole"
	kernel     = "kernel" // of the kernel and the privileges
)

// TestCheckChild is what other tests run with fewer privileges.
func TestCheckChild(t *testing.T) {
	if os.Getenv(checkChild) == "" {
		t.Skip("runs only as a child of another test")
	}
	cfg := probes.Config{Proc: t.TempDir()} // no processes: what is asked is the kernel
	look := probes.CheckKernel
	if os.Getenv(checkChild) == whole {
		look = func(cfg probes.Config) (*probes.Report, error) { return probes.Check(t.Context(), cfg) }
	}
	r, err := look(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
		t.Fatal(err)
	}
}

// check runs Check in a process that has lost these capabilities.
func check(t *testing.T, lost ...string) *probes.Report {
	t.Helper()
	return checkPart(t, whole, lost...)
}

// checkPart is check for one part of the report.
func checkPart(t *testing.T, part string, lost ...string) *probes.Report {
	t.Helper()
	args := []string{"--bounding-set", "-" + strings.Join(lost, ",-"), os.Args[0], "-test.run=^TestCheckChild$"}
	cmd := exec.Command("setpriv", args...)
	cmd.Env, cmd.Stderr = append(os.Environ(), checkChild+"="+part), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("setpriv %v: %v\n%s", args, err, out)
	}
	var r probes.Report
	if err := json.NewDecoder(strings.NewReader(string(out))).Decode(&r); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return &r
}

func asRoot(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to take capabilities away and to attach")
	}
	probes.Watch(t)
}

// TestCheckNamesWhatIsMissing takes each capability away in turn: the report names
// it, and the features that hang on it; nothing else changes.
func TestCheckNamesWhatIsMissing(t *testing.T) {
	asRoot(t)
	r := check(t, "sys_admin")
	if !r.Usable() {
		t.Fatalf("nothing can be captured without CAP_SYS_ADMIN: %+v", r)
	}
	for _, c := range []struct {
		lost, name string
		denied     []string // features
		usable     bool
	}{
		{"bpf", "CAP_BPF", []string{"ring buffer", "uprobes", "raw tracepoints"}, false},
		{"perfmon", "CAP_PERFMON", []string{"uprobes", "raw tracepoints"}, false},
		{"sys_ptrace", "CAP_SYS_PTRACE", nil, true},
		{"dac_read_search", "CAP_DAC_READ_SEARCH", nil, true},
		{"checkpoint_restore", "CAP_CHECKPOINT_RESTORE", []string{"/proc/PID/map_files"}, true},
	} {
		r := check(t, "sys_admin", c.lost)
		if r.Usable() != c.usable {
			t.Errorf("without %s: usable %v, want %v", c.name, r.Usable(), c.usable)
		}
		for _, k := range r.Capabilities {
			missing := k.Without != ""
			if missing != (k.Name == c.name) {
				t.Errorf("without %s: %s missing is %v", c.name, k.Name, missing)
			}
			if missing && k.Next == "" {
				t.Errorf("%s: no next step", k.Name)
			}
		}
		for _, f := range r.Features {
			if want := slices.Contains(c.denied, f.Name); want && f.State != probes.Denied {
				t.Errorf("without %s: %s is %s", c.name, f.Name, f.State)
			}
			if f.State != probes.Yes && (f.Without == "" || f.Next == "" || f.Detail == "") {
				t.Errorf("without %s: %+v does not say what it costs and what to do", c.name, f)
			}
		}
	}
}

// TestCheckKnowsWhatUprobesWant: with the capabilities that deploy/ gives, either all is
// there or CAP_SYS_ADMIN is named, and with that all is there. Kernels before 6.6 with the
// fix of CVE-2025-38466 want it.
func TestCheckKnowsWhatUprobesWant(t *testing.T) {
	asRoot(t)
	probes.AnyWay(t)
	look := func(r *probes.Report) (uprobes probes.Feature, admin probes.Capability) {
		for _, f := range r.Features {
			if f.Name == "uprobes" {
				uprobes = f
			}
		}
		for _, k := range r.Capabilities {
			if k.Name == "CAP_SYS_ADMIN" {
				admin = k
			}
		}
		return uprobes, admin
	}
	r := checkPart(t, kernel, "all,+bpf,+perfmon,+sys_ptrace,+dac_read_search,+checkpoint_restore,+sys_resource")
	uprobes, admin := look(r)
	t.Logf("%s: uprobes %+v, %+v", r.Kernel, uprobes, admin)
	if there := uprobes.State == probes.Yes; admin.Held || admin.Needed == there || (admin.Without == "") != there || (admin.Next == "") != there {
		t.Error("want uprobes, or CAP_SYS_ADMIN to be named")
	}
	uprobes, withIt := look(checkPart(t, kernel, "net_admin"))
	if uprobes.State != probes.Yes || !withIt.Held || withIt.Needed != admin.Needed || withIt.Without != "" {
		t.Errorf("with it: uprobes %+v, %+v", uprobes, withIt)
	}
}

// TestCheckWithoutAnything: with no privileges at all the report still comes.
func TestCheckWithoutAnything(t *testing.T) {
	var r *probes.Report
	if os.Getuid() == 0 {
		r = check(t, "all")
	} else {
		var err error
		if r, err = probes.Check(t.Context(), probes.Config{}); err != nil {
			t.Fatal(err)
		}
	}
	if os.Getuid() == 0 && r.Closed != 0 {
		t.Errorf("%d closed processes where there are none", r.Closed)
	}
	if r.Usable() || r.Sockets.Way != "off" || r.Kernel == "" {
		t.Errorf("%+v", r)
	}
	for _, k := range r.Capabilities {
		if k.Held || k.Needed && (k.Without == "" || k.Next == "") {
			t.Errorf("%+v", k)
		}
	}
}

// TestCheckSeesProcesses: a program with OpenSSL is seen with its library, and
// nothing stays attached.
func TestCheckSeesProcesses(t *testing.T) {
	asRoot(t)
	cmd := exec.Command("python3", "-c", "import ssl, sys; print('ready', flush=True); sys.stdin.read()")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	if _, err := out.Read(make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	var r *probes.Report
	var before, after int
	// The taps of other tests go on, and on programs that start meanwhile.
	for range 3 {
		before = attached(t)
		if r, err = probes.Check(t.Context(), probes.Config{}); err != nil {
			t.Fatal(err)
		}
		if after = attached(t); after <= before {
			break
		}
	}
	found := false
	for _, p := range r.Processes {
		if p.Seen == (p.Reason != "") {
			t.Errorf("%+v: want either seen or a reason", p)
		}
		if int(p.PID) == cmd.Process.Pid {
			found = p.Seen && p.TLS == "openssl" && strings.Contains(p.Library, "libssl.so") && strings.HasPrefix(p.Name, "python3")
		}
	}
	if !found {
		t.Errorf("python3 with ssl is not seen: %+v", r.Processes)
	}
	if after > before {
		t.Errorf("%d links before, %d after", before, after)
	}
}

// TestCheckNamesLibraries: TLS that no tap reads is named by the library that has it.
func TestCheckNamesLibraries(t *testing.T) {
	asRoot(t)
	code, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	boring := filepath.Join(dir, "boring")
	gcc := exec.Command("gcc", "-shared", "-o", boring, "-xc", "-")
	gcc.Stdin = strings.NewReader(`const char text[4 << 20] = "third_party/BoringSSL\0c hs traffic";`)
	if out, err := gcc.CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	want := map[string][2]string{
		"libmbedtls.so.14": {"mbedtls", "no_tap"}, "libwolfssl.so.35": {"wolfssl", "no_tap"}, "libs2n.so.1": {"s2n", "no_tap"},
		"beam.smp": {"erlang", "no_tap"}, "curl_cffi.abi3.so": {"boringssl", "stripped"},
		"cygrpc.cpython-312-x86_64-linux-gnu.so": {"boringssl", "stripped"}, "libnetty_tcnative_linux_x86_6412345.so": {"boringssl", "stripped"},
		"libother.so": {},
	}
	args := []string{"-c", `import mmap, os, sys
maps = [mmap.mmap(os.open(p, os.O_RDONLY), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ|mmap.PROT_EXEC) for p in sys.argv[1:]]
print("ready", flush=True); sys.stdin.read()`}
	for name, w := range want {
		b := code[:4096]
		if w[1] == "stripped" {
			b, err = os.ReadFile(boring)
		}
		path := filepath.Join(dir, name)
		if err := errors.Join(err, os.WriteFile(path, b, 0o755)); err != nil {
			t.Fatal(err)
		}
		args = append(args, path)
	}
	cmd := exec.Command("python3", args...)
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	if _, err := out.Read(make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	r, err := probes.Check(t.Context(), probes.Config{})
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string][2]string)
	for _, p := range r.Processes {
		if filepath.Dir(p.Library) == dir {
			found[filepath.Base(p.Library)] = [2]string{p.TLS, p.Reason}
		}
	}
	for name, w := range want {
		if found[name] != w {
			t.Errorf("%s: %v, want %v", name, found[name], w)
		}
	}
}

// attached counts this process's file descriptors that hold a program, a link, a
// map or a perf event.
func attached(t *testing.T) (n int) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		to, _ := os.Readlink("/proc/self/fd/" + fd.Name())
		if strings.Contains(to, "bpf") || strings.Contains(to, "perf_event") {
			n++
		}
	}
	return n
}

func TestCheckStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := probes.Check(ctx, probes.Config{Proc: t.TempDir()}); err == nil {
		t.Error("a report that is not whole was given as one")
	}
}
