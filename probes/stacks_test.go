package probes

import (
	"bytes"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tollwire/tollwire/flow"
)

// tapped returns once a file whose name begins with prefix is tapped; run is what maps it.
func (c *capture) tapped(prefix string, source flow.Source, run ...string) {
	c.Helper()
	for range 100 {
		for _, a := range c.taps.Attached() {
			if strings.HasPrefix(filepath.Base(a.Path), prefix) {
				if a.Source != source {
					c.Fatalf("%s is tapped as %v", a.Path, a.Source)
				}
				return
			}
		}
		exec.Command(run[0], run[1:]...).Run()
		time.Sleep(20 * time.Millisecond)
	}
	c.Fatalf("no %s was tapped", prefix)
}

// whole reports whether all of one message is there, by its ends.
func (s *content) whole(prefix, suffix string) bool {
	return s.heads == 1 && s.gap == 0 && bytes.HasPrefix(s.bytes, []byte(prefix)) && bytes.HasSuffix(s.bytes, []byte(suffix))
}

// exchange holds one direction to what a program sent or received: from its birth,
// whole, once, by one head.
func (c *capture) exchange(source flow.Source, dir flow.Dir, text, prefix, suffix string) *content {
	c.Helper()
	s := c.one(dir, text)
	if s.source != source || s.late || !s.whole(prefix, suffix) {
		c.Errorf("%v of %q: source %v, late %v, heads %d, gap %d, closed %v, %q",
			dir, text, s.source, s.late, s.heads, s.gap, s.closed, s.bytes)
	}
	return s
}

// raw is a request for programs that are handed one on their standard input.
func raw(id, host string) string {
	return fmt.Sprintf("POST /v1/x?id=%s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello", id, host)
}

// TestGnuTLS: the programs of Debian that are linked to it.
func TestGnuTLS(t *testing.T) {
	anyWay(t)
	c := start(t, Config{})
	server, ca := server(t, true)
	at, _ := url.Parse(server)
	c.tapped("libgnutls.so", flow.SourceGnuTLS, "gnutls-cli", "--version")

	t.Run("wget", func(t *testing.T) {
		c := &capture{t, c.store}
		out := run(t, nil, "wget", "--quiet", "--output-document=-", "--ca-certificate="+ca, "--post-data=hello", server+"/v1/x?id=by-wget")
		if out != "answer to by-wget: 5 bytes" {
			t.Error(out)
		}
		c.exchange(flow.SourceGnuTLS, flow.Write, "id=by-wget", "POST /v1/x?id=by-wget HTTP/1.1\r\n", "hello")
		c.exchange(flow.SourceGnuTLS, flow.Read, "answer to by-wget", "HTTP/1.1 200 OK\r\n", "answer to by-wget: 5 bytes")
	})
	t.Run("gnutls-cli", func(t *testing.T) {
		c := &capture{t, c.store}
		cmd := exec.Command("gnutls-cli", "--x509cafile="+ca, "--verify-hostname=example.com", "--port="+at.Port(), at.Hostname())
		talk(t, cmd, raw("by-gnutls-cli", "example.com"), "answer to by-gnutls-cli: 5 bytes")
		c.exchange(flow.SourceGnuTLS, flow.Write, "id=by-gnutls-cli", "POST /v1/x?id=by-gnutls-cli HTTP/1.1\r\n", "hello")
		c.exchange(flow.SourceGnuTLS, flow.Read, "answer to by-gnutls-cli", "HTTP/1.1 200 OK\r\n", "answer to by-gnutls-cli: 5 bytes")
	})
	t.Run("git", func(t *testing.T) { // a path that is looked into, and no repository there
		c := &capture{t, c.store}
		git := exec.Command("git", "-c", "http.version=HTTP/1.1", "ls-remote", server+"/v1/responses/by-git")
		git.Env = append(os.Environ(), "GIT_SSL_CAINFO="+ca)
		git.Run()
		// It asks in two ways, over one connection.
		w := c.one(flow.Write, "/by-git/")
		if w.source != flow.SourceGnuTLS || w.late || w.heads != 2 || !bytes.HasPrefix(w.bytes, []byte("GET /v1/responses/by-git/info/refs")) {
			t.Errorf("source %v, late %v, heads %d, %q", w.source, w.late, w.heads, w.bytes)
		}
	})
	t.Run("aria2c", func(t *testing.T) {
		c := &capture{t, c.store}
		run(t, nil, "aria2c", "--quiet", "--dir="+t.TempDir(), "--out=answer", "--ca-certificate="+ca, server+"/v1/responses?id=by-aria2c")
		c.exchange(flow.SourceGnuTLS, flow.Write, "id=by-aria2c", "GET /v1/responses?id=by-aria2c", "\r\n\r\n")
		c.exchange(flow.SourceGnuTLS, flow.Read, "answer to by-aria2c", "HTTP/1.1 200 OK\r\n", "answer to by-aria2c: 0 bytes")
	})
}

// TestGnuTLSSends: what was handed over in parts while the session was corked is seen
// once; of a send that goes on with NULL, which nobody can read, the bytes are counted.
func TestGnuTLSSends(t *testing.T) {
	anyWay(t)
	c := start(t, Config{})
	server, _ := server(t, true)
	at, _ := url.Parse(server)
	c.tapped("libgnutls.so", flow.SourceGnuTLS, "gnutls-cli", "--version")
	for _, how := range []string{"corked", "again"} {
		t.Run(how, func(t *testing.T) {
			c := &capture{t, c.store}
			id := "by-gnutls-" + how
			out := run(t, nil, "/usr/bin/python3", "testdata/corked.py", at.Hostname(), at.Port(), id, how)
			if !strings.HasSuffix(strings.TrimSpace(out), "answer to "+id) {
				t.Fatal(out)
			}
			if how == "corked" {
				c.exchange(flow.SourceGnuTLS, flow.Write, "id="+id, "POST /v1/x?until-close&id="+id, "\r\n\r\nhello")
			} else if w := c.one(flow.Write, "id="+id); w.gap == 0 || w.reason != flow.GapUnreadable || w.heads != 1 || len(w.bytes)-bytes.Index(w.bytes, []byte("\r\n\r\n"))-4 != 400_000 {
				t.Errorf("heads %d, %d bytes, of them not seen %d for %v", w.heads, len(w.bytes), w.gap, w.reason)
			}
			c.exchange(flow.SourceGnuTLS, flow.Read, "answer to "+id, "HTTP/1.1 200 OK\r\n", "answer to "+id)
		})
	}
}

// talk hands a program its standard input, and closes it once the answer has come.
func talk(t *testing.T, cmd *exec.Cmd, text, answer string) {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	r, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
	defer stop.Stop()
	fmt.Fprint(in, text)
	buf := make([]byte, 4096)
	for !bytes.Contains(out.Bytes(), []byte(answer)) {
		n, err := r.Read(buf)
		out.Write(buf[:n])
		if err != nil {
			break
		}
	}
	in.Close()
	time.AfterFunc(time.Second, func() { cmd.Process.Kill() }) // tstclnt waits for more
	cmd.Wait()
	if !bytes.Contains(out.Bytes(), []byte(answer)) {
		t.Fatalf("%s did not get %q:\n%s", cmd.Path, answer, out.Bytes())
	}
}

// TestNSS: tstclnt, which connects to the first address of a name alone: -4, or it
// fails on a localhost that is ::1 first. It sees no fault (-o) with the certificate.
func TestNSS(t *testing.T) {
	anyWay(t)
	c := start(t, Config{})
	server, _ := server(t, true)
	at, _ := url.Parse(server)
	c.tapped("libnspr4.so", flow.SourceNSS, "tstclnt", "-h", at.Hostname(), "-p", "1", "-D")
	c.tapped("libssl3.so", flow.SourceNSS, "tstclnt", "-h", at.Hostname(), "-p", "1", "-D")
	cmd := exec.Command("tstclnt", "-4", "-D", "-o", "-h", at.Hostname(), "-p", at.Port(), "-V", "tls1.2:tls1.3")
	talk(t, cmd, raw("by-tstclnt", "example.com"), "answer to by-tstclnt: 5 bytes")
	c.exchange(flow.SourceNSS, flow.Write, "id=by-tstclnt", "POST /v1/x?id=by-tstclnt HTTP/1.1\r\n", "hello")
	c.exchange(flow.SourceNSS, flow.Read, "answer to by-tstclnt", "HTTP/1.1 200 OK\r\n", "answer to by-tstclnt: 5 bytes")
}

// TestEndOfAnswer: that an answer of no stated length has come to its end is told by the
// end of the TLS stream, which every library has its own way to say.
func TestEndOfAnswer(t *testing.T) {
	anyWay(t)
	c := start(t, Config{})
	server, ca := server(t, true)
	c.known(server, ca)
	c.tapped("libgnutls.so", flow.SourceGnuTLS, "gnutls-cli", "--version")
	const script = `
import http.client, ssl, sys, urllib.parse
at = urllib.parse.urlsplit(sys.argv[2])
k = http.client.HTTPSConnection(at.netloc, context=ssl.create_default_context(cafile=sys.argv[1]))
k.request("POST", at.path + "?" + at.query, "{}")
print(k.getresponse().read().decode())
`
	for name, args := range map[string][]string{
		"curl":   {"curl", "--http1.1", "--silent", "--cacert", ca, "--data", "{}"},
		"python": {"/usr/bin/python3", "-c", script, ca}, // by SSL_read_ex
		"wget":   {"wget", "--quiet", "--output-document=-", "--ca-certificate=" + ca, "--post-data={}"},
		"go":     {},
	} {
		t.Run(name, func(t *testing.T) {
			c := &capture{t, c.store}
			id := "until-close-" + name
			to := server + "/v1/x?until-close&id="
			if name == "go" { // a program that nobody had started before
				client := buildClient(t, "", "0")
				args = []string{client}
				c.tapped(filepath.Base(client), flow.SourceGoTLS, "env", "SSL_CERT_FILE="+ca, client, to+"first")
			}
			out := run(t, []string{"SSL_CERT_FILE=" + ca}, args[0], append(args[1:], to+id)...)
			if strings.TrimSpace(out) != "answer to "+id {
				t.Error(out)
			}
			r := c.one(flow.Read, "answer to "+id)
			ended := r.ended
			if !c.taps.cookies && r.source == flow.SourceOpenSSL {
				ended = r.closed // with its session, before Linux 5.15, which check says
			}
			if !ended || r.late {
				t.Errorf("ended %v, closed %v, late %v", r.ended, r.closed, r.late)
			}
		})
	}
}

// TestForked: a session that a child goes on with after fork() is a connection of the
// child's from there on, and says that it was used before.
func TestForked(t *testing.T) {
	anyWay(t)
	c := start(t, Config{})
	server, ca := server(t, true)
	at, _ := url.Parse(server)
	c.known(server, ca)
	run(t, nil, "/usr/bin/python3", "testdata/forked.py", at.Hostname(), at.Port(), ca, "forked")
	parent, child := c.one(flow.Write, "id=forked-parent"), c.one(flow.Write, "id=forked-child")
	if parent.late || !parent.whole("POST /v1/x?id=forked-parent", "hello") || bytes.Contains(parent.bytes, []byte("child")) {
		t.Errorf("parent: late %v, heads %d, %q", parent.late, parent.heads, parent.bytes)
	}
	if !child.late || !child.whole("POST /v1/x?id=forked-child", "hello") || child.conn.Proc.PID == parent.conn.Proc.PID {
		t.Errorf("child: late %v, heads %d, %q, pid %d of %d", child.late, child.heads, child.bytes, child.conn.Proc.PID, parent.conn.Proc.PID)
	}
	for _, who := range []string{"parent", "child"} {
		if r := c.one(flow.Read, "answer to forked-"+who); !r.whole("HTTP/1.1 200 OK", "answer to forked-"+who+": 5 bytes") {
			t.Errorf("answer to the %s: %q", who, r.bytes)
		}
	}
}

// TestBoringSSL: where its functions have names, they are OpenSSL's.
func TestBoringSSL(t *testing.T) {
	anyWay(t)
	needRoot(t)
	found, _ := filepath.Glob("/usr/lib/*/android/libssl.so.0")
	if len(found) == 0 {
		t.Fatal("no BoringSSL: install android-libboringssl")
	}
	testLibssl(t, found[0])
}

// libssls are OpenSSL's libraries of other versions, whose libcrypto lies beside them.
var libssls = flag.String("libssls", "", "paths of more libssl for TestLibssls, separated by commas")

func TestLibssls(t *testing.T) {
	for lib := range strings.SplitSeq(*libssls, ",") {
		if lib != "" {
			t.Run(filepath.Base(lib), func(t *testing.T) { testLibssl(t, lib) })
		}
	}
}

// testLibssl has a program load a library, and make requests by it.
func testLibssl(t *testing.T, lib string) {
	c := start(t, Config{})
	server, _ := server(t, true)
	at, _ := url.Parse(server)
	bin := filepath.Join(t.TempDir(), "tlsget")
	run(t, nil, "gcc", "-O2", "-Wall", "-Werror", "-o", bin, "testdata/tlsget.c")
	env := []string{"LD_LIBRARY_PATH=" + filepath.Dir(lib)}
	get := func(id string) string { return run(t, env, bin, lib, at.Hostname(), at.Port(), id) }
	c.tapped(filepath.Base(lib), flow.SourceOpenSSL, "env", env[0], bin, lib, at.Hostname(), at.Port(), "first")
	id := "libssl-" + filepath.Base(filepath.Dir(lib)) + "-" + filepath.Base(lib)
	if out := get(id); !strings.HasSuffix(out, "answer to "+id) {
		t.Error(out)
	}
	c.exchange(flow.SourceOpenSSL, flow.Write, "id="+id, "POST /v1/x?until-close&id="+id, "hello")
	if r := c.exchange(flow.SourceOpenSSL, flow.Read, "answer to "+id, "HTTP/1.1 200 OK\r\n", "answer to "+id); !r.ended || !r.closed {
		t.Errorf("ended %v, closed %v", r.ended, r.closed)
	}
}
