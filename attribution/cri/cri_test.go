package cri

import (
	"context"
	"errors"
	"maps"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/tollwire/tollwire/attribution"
)

func text(b []byte, n protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, n, protowire.BytesType), s)
}

func message(b []byte, n protowire.Number, m []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, n, protowire.BytesType), m)
}

func entries(b []byte, n protowire.Number, kv ...string) []byte {
	for i := 0; i < len(kv); i += 2 {
		b = message(b, n, text(text(nil, 1, kv[i]), 2, kv[i+1]))
	}
	return b
}

func sandboxMessage(id, name, uid string, created uint64, labels, annotations []string) []byte {
	meta := text(text(text(nil, 1, name), 2, uid), 3, "prod")
	meta = protowire.AppendVarint(protowire.AppendTag(meta, 4, protowire.VarintType), 1)
	b := message(text(nil, 1, id), 2, meta)
	b = protowire.AppendVarint(protowire.AppendTag(b, 4, protowire.VarintType), created)
	b = entries(entries(b, 5, labels...), 6, annotations...)
	return text(b, 7, "runc")
}

func containerMessage(id, sandbox, name string) []byte {
	return message(text(text(nil, 1, id), 2, sandbox), 3, text(nil, 1, name))
}

// runtime is as much of a container runtime as a Lister talks to.
func runtime(t *testing.T, sandboxes, containers func() []byte) string {
	t.Helper()
	root := t.TempDir()
	path := filepath.Join(root, sockets[0])
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.ForceServerCodec(raw{}), grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		method, _ := grpc.MethodFromServerStream(stream)
		var request []byte
		if err := stream.RecvMsg(&request); err != nil {
			return err
		}
		switch method {
		case "/runtime.v1.RuntimeService/ListPodSandbox":
			return stream.SendMsg(sandboxes())
		case "/runtime.v1.RuntimeService/ListContainers":
			return stream.SendMsg(containers())
		}
		t.Errorf("%s was called: it is not one of the two that only read", method)
		return errors.New("no")
	}))
	go s.Serve(l)
	t.Cleanup(s.Stop)
	return root
}

func TestLister(t *testing.T) {
	var grown atomic.Bool
	root := runtime(t, func() []byte {
		b := message(nil, 1, sandboxMessage("s0", "old-name", "u1", 1, nil, nil))
		b = message(b, 1, sandboxMessage("s1", "web-5d4f-x", "u1", 2,
			[]string{"pod-template-hash", "5d4f", "tollwire.io/node", "front", "io.kubernetes.pod.uid", "u1"},
			[]string{"resource.opentelemetry.io/service.name", "shop", "other", "x"}))
		if grown.Load() {
			b = message(b, 1, sandboxMessage("s2", "db-0", "u2", 3, []string{"statefulset.kubernetes.io/pod-name", "db-0"}, nil))
		}
		return b
	}, func() []byte {
		b := message(nil, 1, containerMessage("c1", "s1", "app"))
		b = message(b, 1, containerMessage("c0", "s0", "app"))
		if grown.Load() {
			b = message(b, 1, containerMessage("c2", "s2", "db"))
		}
		return b
	})
	l, err := New(Config{HostRoot: root})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go l.Run(ctx)
	p := eventually(t, l, "u1", "c1")
	if p.Name != "web-5d4f-x" || p.Namespace != "prod" || p.Controller != "web" || len(p.Containers) != 2 ||
		!maps.Equal(p.Labels, map[string]string{"pod-template-hash": "5d4f", "tollwire.io/node": "front"}) ||
		!maps.Equal(p.Annotations, map[string]string{"resource.opentelemetry.io/service.name": "shop"}) {
		t.Fatalf("%+v", p)
	}
	if q, _ := l.Pod("", "c0"); q != p {
		t.Error("not found by the container of its first sandbox")
	}
	grown.Store(true)
	if p := eventually(t, l, "u2", "c2"); p.Controller != "db" {
		t.Errorf("%+v", p)
	}
	if l.Failures() != 0 {
		t.Errorf("%d failures", l.Failures())
	}
}

// eventually asks for a pod until it is known.
func eventually(t *testing.T, l *Lister, uid, container string) *attribution.Pod {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if p, ok := l.Pod(uid, container); ok {
			return p
		}
	}
	t.Fatalf("pod %s was asked for and is not known", uid)
	return nil
}

func TestNoSocket(t *testing.T) {
	if _, err := New(Config{HostRoot: t.TempDir()}); !errors.Is(err, ErrNoSocket) {
		t.Errorf("err %v, want %v", err, ErrNoSocket)
	}
}

func TestWorkload(t *testing.T) {
	for _, c := range []struct {
		pod, label, value, want string
	}{
		{"web-5d4f-x", "pod-template-hash", "5d4f", "web"},
		{"web-5d4f-x", "pod-template-hash", "other", ""},
		{"nightly-29000000-x", "batch.kubernetes.io/job-name", "nightly-29000000", "nightly"},
		{"once-x", "batch.kubernetes.io/job-name", "once", "once"},
		{"db-0", "statefulset.kubernetes.io/pod-name", "db-0", "db"},
		{"ds-x", "controller-revision-hash", "h", "ds"},
		{"bare", "app", "x", ""},
	} {
		if _, got := workload(c.pod, map[string]string{c.label: c.value, "pod-template-generation": "1"}, time.Unix(29_000_000*60, 0)); got != c.want {
			t.Errorf("workload(%q, %s=%s) = %q, want %q", c.pod, c.label, c.value, got, c.want)
		}
	}
}

func FuzzWire(f *testing.F) {
	f.Add(message(nil, 1, sandboxMessage("s1", "web", "u1", 2, []string{"a", "b"}, []string{"c", "d"})))
	f.Add(message(nil, 1, containerMessage("c1", "s1", "app")))
	f.Fuzz(func(t *testing.T, b []byte) {
		all, _ := parseSandboxes(b)
		for _, s := range all {
			if s.uid == "" {
				t.Error("a sandbox without uid")
			}
		}
		parseContainers(b)
	})
}
