package probes

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/tollwire/tollwire/flow"
)

// goroots are other toolchains for TestGo: make test-go has them downloaded.
var goroots = flag.String("goroots", "", "GOROOTs for TestGo, separated by commas, each built in every way")

// clients are those of the tests that run in emulated machines, where building one takes
// minutes: make test-kernels has them built.
var clients = flag.String("clients", "", "folder with what compile, rewritable and buildClient would make for each test")

// TestGo: Go programs as they are built: with symbols, stripped, as position-independent
// executables, linked by the C compiler.
func TestGo(t *testing.T) {
	anyWay(t)
	c := start(t, Config{})
	server, ca := server(t, true)
	try := func(name, goroot, cgo string, flags ...string) {
		t.Run(name, func(t *testing.T) {
			c := &capture{t, c.store}
			client := buildClient(t, goroot, cgo, flags...)
			_, target := targetIn(t, client)
			if runtime.GOARCH == "amd64" && !slices.ContainsFunc(target.hooks, func(h hook) bool { return h.program == "gotls_read_return" }) {
				t.Error("a Read that began before the tap is not seen")
			}
			to, env := server+"/v1/x?id=", []string{"SSL_CERT_FILE=" + ca}
			c.tapped(filepath.Base(client), flow.SourceGoTLS, "env", env[0], client, to+"first")
			id := "go-" + name
			if out := run(t, env, client, to+id); out != "answer to "+id+": 2 bytes" {
				t.Error(out)
			}
			c.exchange(flow.SourceGoTLS, flow.Write, "id="+id, "POST /v1/x?id="+id, "{}")
			c.exchange(flow.SourceGoTLS, flow.Read, "answer to "+id, "HTTP/1.1 200 OK\r\n", "answer to "+id+": 2 bytes")
		})
	}
	try("stripped", "", "0", "-ldflags=-s -w")
	for goroot := range strings.SplitSeq(*goroots, ",") {
		if goroot == "" {
			continue
		}
		version, err := exec.Command(filepath.Join(goroot, "bin", "go"), "env", "GOVERSION").Output()
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSpace(string(version))
		try(name, goroot, "0")
		try(name+"-stripped", goroot, "0", "-ldflags=-s -w")
		try(name+"-pie-stripped", goroot, "0", "-buildmode=pie", "-ldflags=-s -w")
		try(name+"-cgo-stripped", goroot, "1", "-ldflags=-s -w -linkmode=external")
	}
}

// buildClient builds a program that makes one request, with the toolchain at goroot or
// the one that runs this test, and with flags of go build.
func buildClient(t *testing.T, goroot, cgo string, flags ...string) string {
	t.Helper()
	name := filepath.Base(t.Name()) + "-client"
	if *clients != "" {
		return filepath.Join(*clients, name)
	}
	dir := t.TempDir()
	source, err := os.ReadFile("testdata/goclient/main.go")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"main.go": string(source), "go.mod": "module goclient\n\ngo 1.18\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	client := filepath.Join(dir, name)
	command, env := "go", append(os.Environ(), "GOTOOLCHAIN=local", "GOWORK=off", "GOFLAGS=-buildvcs=false", "CGO_ENABLED="+cgo)
	if goroot != "" { // Go 1.19 does not build where its GOROOT lies in the module cache
		env = append(env, "GOMODCACHE="+filepath.Join(dir, "modules"))
		command, env = filepath.Join(goroot, "bin", "go"), append(env, "GOROOT="+goroot)
	}
	build := exec.Command(command, append(append([]string{"build", "-o", client}, flags...), ".")...)
	build.Dir, build.Env = dir, env
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return client
}
