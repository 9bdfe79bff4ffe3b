package probes

import (
	"bufio"
	"bytes"
	"context"
	cryptotls "crypto/tls"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"

	"github.com/tollwire/tollwire/flow"
	"github.com/tollwire/tollwire/probes/signature"
)

// inBoringSSL is where the tap's programs belong in Debian's BoringSSL, which is a library
// with names and so is left to OpenSSL's tap otherwise. The functions are those that ring
// 0.16.20 took from it. To look for them takes seconds in an emulated machine.
var inBoringSSL = sync.OnceValue(func() (found struct {
	libcrypto string
	target    *target
	err       error
}) {
	all, _ := filepath.Glob("/usr/lib/*/android/libcrypto.so.0")
	if len(all) == 0 {
		found.err = errors.New("no BoringSSL: install android-libboringssl")
		return found
	}
	found.libcrypto = all[0]
	found.target, found.err = targetInBoringSSL(all[0])
	return found
})

func targetInBoringSSL(libcrypto string) (*target, error) {
	file, err := os.Open(libcrypto)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	f, err := elf.NewFile(file)
	if err != nil {
		return nil, err
	}
	published, err := signature.Published()
	if err != nil {
		return nil, err
	}
	matches, _, err := published.For(runtime.GOARCH).Find(file, signature.Code(f), func(int) error { return nil })
	if err != nil {
		return nil, err
	}
	var ours []signature.Match
	for _, m := range matches {
		if m.Library != "ring" || m.Build != "0.16.20" {
			continue
		}
		s := *m.Signature
		s.Library = "boringssl"
		if s.Role == signature.Multiply {
			s.Returns = []int{184}
		}
		ours = append(ours, signature.Match{Signature: &s, Offset: m.Offset})
	}
	if len(ours) != 8 {
		return nil, fmt.Errorf("%d functions of BoringSSL match, want 8: is it another version?", len(ours))
	}
	return aeadTarget(map[string][]signature.Match{"boringssl": ours})
}

// boringSSL taps BoringSSL while the test runs. It returns the path of its libssl.
func (c *capture) boringSSL() (libssl string) {
	c.Helper()
	if runtime.GOARCH != "amd64" {
		c.Skip("of BoringSSL for arm64 there are no signatures")
	}
	if err := c.taps.refused[flow.SourceAEADBoringSSL]; errors.Is(err, errTooOld) {
		c.Skip(err)
	}
	found := inBoringSSL()
	if found.err != nil {
		c.Fatal(found.err)
	}
	file, err := os.Open(found.libcrypto)
	if err != nil {
		c.Fatal(err)
	}
	defer file.Close()
	if err := c.taps.followSockets(); err != nil {
		c.Fatal(err)
	}
	links, err := c.taps.attachFile(file, found.target)
	if err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() {
		if err := closeAll(links); err != nil {
			c.Error(err)
		}
	})
	return filepath.Join(filepath.Dir(found.libcrypto), "libssl.so.0")
}

// aeadCounters are those of what was seen since begin.
func (c *capture) aeadCounters(begin SourceStats) SourceStats {
	now := c.taps.Stats().Sources[flow.SourceAEADBoringSSL]
	now.Seen -= begin.Seen
	now.Submitted -= begin.Submitted
	now.Ignored -= begin.Ignored
	for i := range now.Dropped {
		now.Dropped[i] -= begin.Dropped[i]
	}
	return now
}

// aead returns the only stream that the cipher tap has seen with that text.
func (c *capture) aead(dir flow.Dir, text string) *content {
	c.Helper()
	var ours []*content
	deadline := time.Now().Add(10 * time.Second)
	for ; len(ours) < 2 && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		ours = slices.DeleteFunc(c.seen(dir, text), func(s *content) bool { return s.source != flow.SourceAEADBoringSSL })
		if len(ours) == 1 && ours[0].settled() {
			return ours[0]
		}
	}
	c.Fatalf("%q was seen %d times, want once", text, len(ours))
	return nil
}

// tlsServer serves each connection by script, which says false where it shall be closed
// without a word. What it has not read yet is little.
func tlsServer(t *testing.T, cfg *cryptotls.Config, script func(*cryptotls.Conn) error) (host, port string) {
	t.Helper()
	s := httptest.NewUnstartedServer(nil) // for its certificate
	s.StartTLS()
	t.Cleanup(s.Close)
	cfg.Certificates = s.TLS.Certificates
	listen := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		return errors.Join(err, c.Control(func(fd uintptr) {
			err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 64<<10)
		}))
	}}
	l, err := listen.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				tls := cryptotls.Server(conn, cfg)
				defer tls.Close()
				if err := script(tls); err != nil && !errors.Is(err, io.EOF) {
					t.Error(err)
				}
			}()
		}
	}()
	host, port, _ = net.SplitHostPort(l.Addr().String())
	return host, port
}

// eachRequest reads requests and has each answered.
func eachRequest(answer func(io.Writer, *http.Request) error) func(*cryptotls.Conn) error {
	return func(conn *cryptotls.Conn) error {
		r := bufio.NewReader(conn)
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return err
			}
			if _, err := io.Copy(io.Discard, req.Body); err != nil {
				return err
			}
			if err := answer(conn, req); err != nil {
				return err
			}
		}
	}
}

// answers answers each request in records of these sizes.
func answers(sizes ...int) func(*cryptotls.Conn) error {
	return eachRequest(func(conn io.Writer, req *http.Request) error {
		return answer(conn, req.URL.Query().Get("id"), sizes...)
	})
}

// answer writes an answer whose body begins in records of these sizes.
func answer(w io.Writer, id string, sizes ...int) error {
	for _, piece := range answerPieces(id, sizes...) {
		if _, err := io.WriteString(w, piece); err != nil {
			return err
		}
	}
	return nil
}

func answerPieces(id string, sizes ...int) []string {
	last := "answer to " + id + ", end."
	length := len(last)
	pieces := []string{""}
	for _, n := range sizes {
		pieces = append(pieces, strings.Repeat("z", n))
		length += n
	}
	pieces[0] = fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", length)
	return append(pieces, last)
}

// request is what the client of testdata sends.
func request(id string, body int) []byte {
	b := fmt.Appendf(nil, "POST /v1/x?id=%s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", id, body)
	for i := range body {
		b = append(b, 'a'+byte(i%26))
	}
	return b
}

// OPENSSL_ia32cap(3) without AES-NI: ChaCha20 is preferred then.
const noAES = "OPENSSL_ia32cap=~0x200000000000000:~0x0"

// TestCipherTapOnlyData: what leaves the kernel side, and what it counts, is application
// data to the byte, whatever else was sealed and opened: the handshake, session tickets,
// key updates, alerts.
func TestCipherTapOnlyData(t *testing.T) {
	anyWay(t)
	c := start(t, Config{})
	libssl, bin := c.boringSSL(), compile(t, "aeadcalls")
	env := []string{"LD_LIBRARY_PATH=" + filepath.Dir(libssl)}
	const gcm12, chacha12 = cryptotls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, cryptotls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
	for _, way := range []struct {
		name, way string
		version   uint16
		cipher    uint16
		env       string
	}{
		{"TLS 1.3, AES-GCM", "plain", cryptotls.VersionTLS13, cryptotls.TLS_AES_128_GCM_SHA256, ""},
		{"TLS 1.3, AES-GCM, key update", "updated", cryptotls.VersionTLS13, cryptotls.TLS_AES_128_GCM_SHA256, ""},
		{"TLS 1.3, ChaCha20", "plain", cryptotls.VersionTLS13, cryptotls.TLS_CHACHA20_POLY1305_SHA256, noAES},
		{"TLS 1.3, ChaCha20, key update", "updated", cryptotls.VersionTLS13, cryptotls.TLS_CHACHA20_POLY1305_SHA256, noAES},
		{"TLS 1.2, AES-GCM", "plain", cryptotls.VersionTLS12, gcm12, ""},
		{"TLS 1.2, ChaCha20", "plain", cryptotls.VersionTLS12, chacha12, ""},
	} {
		t.Run(way.name, func(t *testing.T) {
			c := &capture{T: t, store: c.store}
			sizes := []int{1, 14, 15, 16, 17, 31, 100, 1000, 16384}
			script := answers(sizes...)
			// Whoever asks for a certificate sends session tickets after the client's
			// Finished, others in their first flight, before anything was sealed.
			cfg := &cryptotls.Config{MaxVersion: way.version, CipherSuites: []uint16{way.cipher}, ClientAuth: cryptotls.RequestClientCert}
			host, port := tlsServer(t, cfg, func(conn *cryptotls.Conn) error {
				if err := conn.Handshake(); err != nil {
					return err
				}
				if s := conn.ConnectionState(); s.Version != way.version || s.CipherSuite != way.cipher {
					t.Errorf("%s, %s", cryptotls.VersionName(s.Version), cryptotls.CipherSuiteName(s.CipherSuite))
				}
				return script(conn)
			})
			begin := c.aeadCounters(SourceStats{})
			id := fmt.Sprintf("only-data-%d", time.Now().UnixNano())
			run(t, append(env, way.env), bin, libssl, way.way, host, port, id)
			sent, answered := request(id, 40000), []byte(strings.Join(answerPieces(id, sizes...), ""))
			if way.way == "updated" {
				sent = append(sent, request(id+"-next", 40000)...)
				answered = append(answered, strings.Join(answerPieces(id+"-next", sizes...), "")...)
			}
			for _, want := range []struct {
				dir  flow.Dir
				text []byte
			}{{flow.Write, sent}, {flow.Read, answered}} {
				got := c.aead(want.dir, id)
				if got.late || got.gap != 0 || !bytes.Equal(got.bytes, want.text) {
					t.Errorf("%v: late %v, gap %d, %d bytes, want %d", want.dir, got.late, got.gap, len(got.bytes), len(want.text))
				}
				if want.dir == flow.Read && (!got.ended || !got.closed) {
					t.Errorf("ended %v, closed %v", got.ended, got.closed)
				}
			}
			all := uint64(len(sent) + len(answered))
			if now := c.aeadCounters(begin); now.Seen != all || now.Submitted != all {
				t.Errorf("%d bytes seen, %d submitted, want %d: something is no data", now.Seen, now.Submitted, all)
			}
		})
	}
}

// TestCipherTapNeverSent: what is sealed and never sent is counted, and nothing that is
// sealed after it is taken for it.
func TestCipherTapNeverSent(t *testing.T) {
	anyWay(t)
	c := start(t, Config{})
	libssl, bin := c.boringSSL(), compile(t, "aeadcalls")
	host, port := tlsServer(t, &cryptotls.Config{}, answers())
	begin := c.aeadCounters(SourceStats{})
	id := fmt.Sprintf("never-sent-%d", time.Now().UnixNano())
	run(t, []string{"LD_LIBRARY_PATH=" + filepath.Dir(libssl)}, bin, libssl, "dropped", host, port, id)
	w := c.aead(flow.Write, id)
	if want := bytes.Repeat(request(id, 40000), 60); w.gap != 0 || !bytes.Equal(w.bytes, want) {
		t.Errorf("gap %d, %d bytes, want %d", w.gap, len(w.bytes), len(want))
	}
	for _, s := range c.seen(flow.Write, "never-sent HTTP") {
		if s.source == flow.SourceAEADBoringSSL {
			t.Errorf("what was never sent is a connection's: %+v", s.conn)
		}
	}
	if now, want := c.aeadCounters(begin), uint64(len(request("never-sent", 10))); now.Dropped[flow.GapUnjoined] != want {
		t.Errorf("%d bytes are counted as never joined, want %d", now.Dropped[flow.GapUnjoined], want)
	}
}

// TestCipherTapEarlyAnswer: an answer that one thread opens while another is still in the
// write of its request belongs to that request.
func TestCipherTapEarlyAnswer(t *testing.T) {
	anyWay(t)
	c := start(t, Config{})
	libssl, bin := c.boringSSL(), compile(t, "aeadcalls")
	for _, way := range []string{"early", "early-first"} {
		t.Run(way, func(t *testing.T) {
			c := &capture{T: t, store: c.store}
			id := fmt.Sprintf("%s-answer-%d", way, time.Now().UnixNano())
			last, first := id, uint32(1)
			if way == "early" {
				last, first = id+"-next", 2
			}
			release := make(chan struct{})
			host, port := tlsServer(t, &cryptotls.Config{}, func(conn *cryptotls.Conn) error {
				r := bufio.NewReader(conn)
				for {
					req, err := http.ReadRequest(r)
					if err != nil {
						return err
					}
					id := req.URL.Query().Get("id")
					if err := answer(conn, id); err != nil {
						return err
					}
					if id == last {
						<-release
					}
					if _, err := io.Copy(io.Discard, req.Body); err != nil {
						return err
					}
				}
			})
			cmd := exec.Command(bin, libssl, way, host, port, id)
			cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+filepath.Dir(libssl))
			var said bytes.Buffer
			cmd.Stderr = &said
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			line, _ := bufio.NewReader(out).ReadString('\n')
			close(release)
			if err := cmd.Wait(); err != nil || line != "answered\n" {
				t.Fatalf("%v, %q: %s", err, line, said.String())
			}
			w, r := c.aead(flow.Write, id), c.aead(flow.Read, id)
			wrote, read := request(id, 10), []byte(strings.Join(answerPieces(id), ""))
			if way == "early" {
				wrote, read = append(wrote, request(last, 1<<20)...), append(read, strings.Join(answerPieces(last), "")...)
			} else {
				wrote = request(id, 1<<20)
			}
			for _, k := range []struct {
				*content
				want []byte
			}{{w, wrote}, {r, read}} {
				if k.late || k.gap != 0 || !bytes.Equal(k.bytes, k.want) {
					t.Errorf("late %v, gap %d, %d bytes, want %d", k.late, k.gap, len(k.bytes), len(k.want))
				}
				want := []uint32{1, 2}[:first]
				if !slices.Equal(k.exchanges, want) {
					t.Errorf("heads of exchanges %v, want %v", k.exchanges, want)
				}
			}
			if w.last > r.last {
				t.Error("the answer came before its request")
			}
		})
	}
}

// TestCipherTapLostAndFound: records that are too many to be followed in one read are
// missed with a gap, at the connection's end too, and else the connection is followed
// again after it.
func TestCipherTapLostAndFound(t *testing.T) {
	anyWay(t)
	c := start(t, Config{})
	libssl, bin := c.boringSSL(), compile(t, "aeadcalls")
	const records, size = 2000, 8 // bytes; some 1365 are followed
	host, port := tlsServer(t, &cryptotls.Config{}, eachRequest(func(conn io.Writer, req *http.Request) error {
		var sizes []int
		id := req.URL.Query().Get("id")
		if !strings.HasSuffix(id, "-next") {
			sizes = slices.Repeat([]int{size}, records)
		}
		return answer(conn, id, sizes...)
	}))
	for _, way := range []string{"many", "many-last"} {
		t.Run(way, func(t *testing.T) {
			c := &capture{T: t, store: c.store}
			id := fmt.Sprintf("lost-%d", time.Now().UnixNano())
			begin := c.aeadCounters(SourceStats{})
			run(t, []string{"LD_LIBRARY_PATH=" + filepath.Dir(libssl)}, bin, libssl, way, host, port, id, fmt.Sprint(records*(5+size+1+16)))
			sent, answered, heads := request(id, 10), "", []uint32{1}
			if way == "many" {
				sent, heads = append(sent, request(id+"-next", 10)...), append(heads, 2)
				answered = strings.Join(answerPieces(id+"-next"), "")
			}
			w := c.aead(flow.Write, id)
			if w.gap != 0 || !bytes.Equal(w.bytes, sent) {
				t.Errorf("gap %d, %q", w.gap, w.bytes)
			}
			r, now := c.of(w, flow.Read), c.aeadCounters(begin)
			missed := now.Dropped[flow.GapUnjoined]
			t.Logf("%d bytes were missed, and left a gap of %d", missed, r.gap)
			if missed == 0 || missed > records*size+100 || r.gap < missed || r.reason != flow.GapUnjoined || !slices.Equal(r.exchanges, heads) {
				t.Errorf("%d bytes missed, a gap of %d for %v, heads of exchanges %v", missed, r.gap, r.reason, r.exchanges)
			}
			if !bytes.HasSuffix(r.bytes, []byte(answered)) {
				t.Errorf("the next answer is not whole: %q", r.bytes[len(r.bytes)-200:])
			}
		})
	}
}

// TestCipherTapMissed: records that go by calls which are not followed are a gap, at the
// connection's end too.
func TestCipherTapMissed(t *testing.T) {
	anyWay(t)
	c := start(t, Config{})
	libssl, bin := c.boringSSL(), compile(t, "aeadcalls")
	host, port := tlsServer(t, &cryptotls.Config{}, answers(100))
	for _, way := range []string{"messages", "messages-last"} {
		t.Run(way, func(t *testing.T) {
			c := &capture{T: t, store: c.store}
			id := fmt.Sprintf("missed-%d", time.Now().UnixNano())
			begin := c.aeadCounters(SourceStats{})
			run(t, []string{"LD_LIBRARY_PATH=" + filepath.Dir(libssl)}, bin, libssl, way, host, port, id)
			w := c.aead(flow.Write, id)
			r := c.of(w, flow.Read)
			for _, k := range []struct {
				*content
				first, missed, last []byte
			}{
				{w, request(id, 10), request("by-messages", 10), request(id+"-next", 10)},
				{r, []byte(strings.Join(answerPieces(id, 100), "")), []byte(strings.Join(answerPieces("by-messages", 100), "")),
					[]byte(strings.Join(answerPieces(id+"-next", 100), ""))},
			} {
				if way == "messages-last" {
					k.last = nil
				}
				if !bytes.HasPrefix(k.bytes, k.first) || !bytes.HasSuffix(k.bytes, k.last) ||
					uint64(len(k.bytes)) != uint64(len(k.first)+len(k.last))+k.gap && k.last != nil {
					t.Errorf("%q", k.bytes)
				}
				if n := uint64(len(k.missed)); k.gap < n || k.gap > 2*n+100 || k.reason != flow.GapUnjoined {
					t.Errorf("%d bytes of data were missed, and left a gap of %d for %v", n, k.gap, k.reason)
				}
			}
			if now, n := c.aeadCounters(begin), len(strings.Join(answerPieces("by-messages", 100), "")); now.Dropped[flow.GapUnjoined] != uint64(n) {
				t.Errorf("%d bytes were counted, want %d", now.Dropped[flow.GapUnjoined], n)
			}
		})
	}
}

// TestCipherTapRest: what was followed and not taken by its call is known to be sent
// however it was.
func TestCipherTapRest(t *testing.T) {
	anyWay(t)
	c := start(t, Config{})
	libssl, bin := c.boringSSL(), compile(t, "aeadcalls")
	host, port := tlsServer(t, &cryptotls.Config{}, answers())
	id := fmt.Sprintf("rest-%d", time.Now().UnixNano())
	run(t, []string{"LD_LIBRARY_PATH=" + filepath.Dir(libssl)}, bin, libssl, "rest", host, port, id)
	want := slices.Concat(request(id, 10), request("rest-by-messages", 1<<20), request(id+"-next", 10))
	if w := c.aead(flow.Write, id); w.gap != 0 || !bytes.Equal(w.bytes, want) {
		t.Errorf("gap %d, %d bytes, want %d", w.gap, len(w.bytes), len(want))
	}
}

// TestCipherTapOneFunction: a function that two libraries share has one program, and none
// where it does only a part of a record.
func TestCipherTapOneFunction(t *testing.T) {
	shared := func(role signature.Role) (*target, error) {
		libraries := make(map[string][]signature.Match)
		for _, l := range []string{"ring", "aws-lc"} {
			libraries[l] = []signature.Match{{Signature: &signature.Signature{Library: l, Role: role}, Offset: 4096}}
		}
		return aeadTarget(libraries)
	}
	if _, err := shared(signature.Hash); !errors.Is(err, errNoTarget) {
		t.Errorf("of a shared hash: %v, want %v", err, errNoTarget)
	}
	target, err := shared(signature.ChaSeal)
	if err != nil {
		t.Fatal(err)
	}
	var sites []string
	for _, h := range target.hooks {
		for range h.sites {
			sites = append(sites, h.program)
		}
	}
	if want := []string{"aead_chacha_end", "aead_chacha_seal_awslc"}; !slices.Equal(sites, want) {
		t.Errorf("programs %v, want %v", sites, want)
	}
}

// TestCipherTapWithoutLoop: its programs are taken where there is no bpf_loop (before
// Linux 5.17), as far as they can be told on a newer kernel.
func TestCipherTapWithoutLoop(t *testing.T) {
	anyWay(t)
	needRoot(t)
	spec, err := loadCipherTap()
	if errors.Is(err, errTooOld) { // before 5.12 the tap is left out, as check says and TestStockKernel asks for
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	maps.DeleteFunc(spec.Programs, func(name string, _ *ebpf.ProgramSpec) bool { // the others are shorter, or the like
		return !strings.HasPrefix(name, "aead_moved") && !strings.HasPrefix(name, "aead_sends") && !strings.HasPrefix(name, "aead_closed") && name != "aead_multiply_boringssl"
	})
	spec.Maps[coreMapRings].InnerMap = &ebpf.MapSpec{Type: ebpf.RingBuf, MaxEntries: 8 << 20}
	withoutCallbacks(spec)
	kernel, err := btf.LoadSpec("/sys/kernel/btf/vmlinux")
	if err != nil {
		t.Fatal(err)
	}
	var helpers *btf.Enum
	if err := kernel.TypeByName("bpf_func_id", &helpers); err != nil {
		t.Fatal(err)
	}
	helpers.Values = slices.DeleteFunc(helpers.Values, func(v btf.EnumValue) bool { return v.Name == "BPF_FUNC_loop" })
	taken, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{KernelTypes: kernel}})
	if err != nil {
		t.Fatal(err)
	}
	taken.Close()
}

// TestFollowAllOrNone: what follows sockets and cannot be attached whole leaves nothing.
func TestFollowAllOrNone(t *testing.T) {
	anyWay(t)
	needRoot(t)
	program := func(kind ebpf.ProgramType) *ebpf.Program {
		p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: kind, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Close() })
		return p
	}
	kind := ebpf.RawTracepoint
	if byPerf() {
		kind = ebpf.TracePoint
	}
	taps := &Taps{programs: make(map[string]*ebpf.Program)}
	for _, name := range []string{"aead_moved", "aead_sends", "aead_closed"} {
		p := program(kind)
		taps.programs[name], taps.programs[name+"_whole"] = p, p
	}
	attached := func() (n int) {
		info, err := taps.programs["aead_moved"].Info()
		if err != nil {
			t.Fatal(err)
		}
		id, _ := info.ID()
		var all link.Iterator
		defer all.Close()
		for all.Next() {
			if info, err := all.Link.Info(); err == nil && info.Program == id {
				n++
			}
		}
		if err := all.Err(); err != nil {
			t.Fatal(err)
		}
		return n
	}
	good, bad := taps.programs["aead_closed"], program(ebpf.SocketFilter)
	taps.programs["aead_closed"], taps.programs["aead_closed_whole"] = bad, bad
	for range 2 {
		if err := taps.followSockets(); err == nil {
			t.Fatal("a socket filter is attached to a tracepoint")
		}
		if n := attached(); n != 0 {
			t.Errorf("%d links stay of what failed", n)
		}
	}
	taps.programs["aead_closed"], taps.programs["aead_closed_whole"] = good, good
	for range 2 {
		if err := taps.followSockets(); err != nil {
			t.Fatal(err)
		}
	}
	if n := attached(); n != 1 {
		t.Errorf("attached %d times", n)
	}
	if err := closeAll(taps.joins); err != nil {
		t.Error(err)
	}
}
