package main

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/json"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/tollwire/tollwire/decoder/conformance"
)

var programs = flag.Bool("programs", false, "build the image and run the programs in it, the other machine's under QEMU: make test-image")

// machines are the architectures that the image is published for, and who runs their
// programs on another one.
var machines = map[string]struct {
	elf      elf.Machine
	emulator string
}{
	"amd64": {elf.EM_X86_64, "qemu-x86_64-static"},
	"arm64": {elf.EM_AARCH64, "qemu-aarch64-static"},
}

// TestPrograms builds the image as it is published. The program of each architecture is
// one of that machine, says so, and makes the same records of all recorded calls.
func TestPrograms(t *testing.T) {
	if !*programs {
		t.Skip("make test-image runs it")
	}
	corpora, err := conformance.Find()
	if err != nil {
		t.Fatal(err)
	}
	recordings, err := filepath.Glob(filepath.Join(corpora, "*", "*.har.gz"))
	if err != nil || len(recordings) == 0 {
		t.Fatalf("%d recordings, %v", len(recordings), err)
	}
	tar := filepath.Join(t.TempDir(), "tollwire.tar")
	if err := run("ghcr.io/tollwire/tollwire:1.2.3", []string{"amd64", "arm64"}, tar, "", "../../cmd/agent", "tollwire", "", "/etc/ssl/certs/ca-certificates.crt"); err != nil {
		t.Fatal(err)
	}
	of := programsOf(t, tar)
	if len(of) != len(machines) {
		t.Fatalf("%d programs in the image", len(of))
	}
	dir := t.TempDir()
	key, config := filepath.Join(dir, "key"), filepath.Join(dir, "config.yaml")
	for path, text := range map[string]string{key: "keys the hashes of both", config: "key_file: " + key + "\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	records := make(map[string][]byte)
	for arch, program := range of {
		f, err := elf.Open(program)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		if f.Machine != machines[arch].elf {
			t.Errorf("%s: the program is one of %v", arch, f.Machine)
		}
		output := func(args ...string) []byte {
			t.Helper()
			args = append([]string{program}, args...)
			if arch != runtime.GOARCH {
				args = append([]string{machines[arch].emulator}, args...)
			}
			cmd := exec.Command(args[0], args[1:]...)
			cmd.Stderr = os.Stderr
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("%s: %v", strings.Join(args[:min(4, len(args))], " "), err)
			}
			return out
		}
		if v := string(output("version")); !strings.HasPrefix(v, "tollwire 1.2.3 ") || !strings.Contains(v, "linux/"+arch) {
			t.Errorf("%s: version says %q", arch, v)
		}
		records[arch] = output(append([]string{"replay", "--config", config}, recordings...)...)
	}
	n := bytes.Count(records["amd64"], []byte("\n"))
	if n == 0 || !bytes.Equal(records["amd64"], records["arm64"]) {
		t.Errorf("%d bytes of records by amd64, %d by arm64: want the same", len(records["amd64"]), len(records["arm64"]))
	}
	t.Logf("%d records of %d recordings, the same by both", n, len(recordings))
}

// programsOf takes the program out of each of the image's layers, by architecture.
func programsOf(t *testing.T, path string) map[string]string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	files := untar(t, f)
	var top, index struct{ Manifests []descriptor }
	if err := json.Unmarshal(files["index.json"], &top); err != nil {
		t.Fatal(err)
	}
	fetch(t, files, top.Manifests[0], &index)
	all := make(map[string]string)
	for _, d := range index.Manifests {
		var manifest struct {
			Config descriptor
			Layers []descriptor
		}
		var config struct{ Architecture string }
		fetch(t, files, d, &manifest)
		fetch(t, files, manifest.Config, &config)
		g, err := gzip.NewReader(bytes.NewReader(fetch(t, files, manifest.Layers[0], nil)))
		if err != nil {
			t.Fatal(err)
		}
		plain, err := io.ReadAll(g)
		if err != nil {
			t.Fatal(err)
		}
		program := filepath.Join(t.TempDir(), config.Architecture)
		if err := os.WriteFile(program, untar(t, bytes.NewReader(plain))["usr/bin/tollwire"], 0o755); err != nil {
			t.Fatal(err)
		}
		all[config.Architecture] = program
	}
	return all
}
