// Package cri knows the pods of this machine from the container runtime's own
// socket, by two read-only calls of the Container Runtime Interface. It names pods,
// their labels and annotations when the API server is away or there is none to ask;
// controllers it knows only by what the pods' labels tell.
package cri

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/tollwire/tollwire/attribution"
)

// ErrNoSocket is returned by New when no runtime's socket is found.
var ErrNoSocket = errors.New("no container runtime's socket found")

// Sockets are where the runtimes listen, below the machine's root folder.
var sockets = [...]string{
	"run/containerd/containerd.sock",
	"run/k3s/containerd/containerd.sock",
	"run/crio/crio.sock",
	"run/cri-dockerd.sock",
}

// Config says which runtime is asked, and for what.
type Config struct {
	HostRoot string // the machine's root folder: attribution.HostRoot
	Socket   string // path of the socket; empty: where the runtimes are known to listen
	// Keep says which annotations are kept; nil: those of resource.opentelemetry.io/.
	Keep   func(annotation string) bool
	Logger *slog.Logger
}

// Lister is the pods of this machine. It is an attribution.Pods.
type Lister struct {
	log    *slog.Logger
	keep   func(string) bool
	conn   *grpc.ClientConn
	missed chan struct{} // a pod or container was asked for that is not known
	fails  atomic.Uint64

	mu          sync.RWMutex
	pods        map[string]*attribution.Pod
	byContainer map[string]*attribution.Pod
}

var _ attribution.Pods = (*Lister)(nil)

// Bounds of what the runtime is asked.
const (
	askTimeout = 5 * time.Second
	pause      = time.Second // between two lists
	maxAnswer  = 32 << 20
)

// New makes a Lister; Run starts it.
func New(c Config) (*Lister, error) {
	if c.Socket == "" {
		for _, s := range sockets {
			path := filepath.Join(c.HostRoot, "/", s)
			if info, err := os.Stat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
				c.Socket = path
				break
			}
		}
		if c.Socket == "" {
			return nil, ErrNoSocket
		}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Keep == nil {
		c.Keep = func(k string) bool { return strings.HasPrefix(k, "resource.opentelemetry.io/") }
	}
	socket := c.Socket
	conn, err := grpc.NewClient("passthrough:///localhost",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		}),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{}), grpc.MaxCallRecvMsgSize(maxAnswer)))
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", c.Socket, err)
	}
	return &Lister{
		log:    c.Logger.With("socket", socket),
		keep:   c.Keep,
		conn:   conn,
		missed: make(chan struct{}, 1),
		pods:   make(map[string]*attribution.Pod),
	}, nil
}

// Run lists the pods, and again whenever one was asked for that is not known, at
// most once a second, until ctx is done.
func (l *Lister) Run(ctx context.Context) {
	defer l.conn.Close()
	for {
		if err := l.list(ctx); err != nil && ctx.Err() == nil {
			if l.fails.Add(1) == 1 {
				l.log.Warn("list the runtime's pods", "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		select {
		case <-ctx.Done():
			return
		case <-l.missed:
		}
	}
}

// Pod returns the pod with this uid, or the one that runs this container.
func (l *Lister) Pod(uid, containerID string) (*attribution.Pod, bool) {
	l.mu.RLock()
	p, ok := l.pods[uid]
	byContainer, known := l.byContainer[containerID]
	l.mu.RUnlock()
	if !ok {
		p, ok = byContainer, known
	}
	if !ok || containerID != "" && !known {
		select {
		case l.missed <- struct{}{}:
		default:
		}
	}
	return p, ok
}

// Failures is how often the runtime did not answer.
func (l *Lister) Failures() uint64 { return l.fails.Load() }

func (l *Lister) list(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var answer []byte
	if err := l.conn.Invoke(ctx, "/runtime.v1.RuntimeService/ListPodSandbox", []byte(nil), &answer); err != nil {
		return fmt.Errorf("list sandboxes: %w", err)
	}
	sandboxes, err := parseSandboxes(answer)
	if err != nil {
		return fmt.Errorf("read sandboxes: %w", err)
	}
	answer = nil
	if err := l.conn.Invoke(ctx, "/runtime.v1.RuntimeService/ListContainers", []byte(nil), &answer); err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	containers, err := parseContainers(answer)
	if err != nil {
		return fmt.Errorf("read containers: %w", err)
	}
	l.replace(sandboxes, containers)
	return nil
}

// replace takes over what the runtime listed. A pod whose sandbox was made anew is
// listed twice; the younger one counts, the containers of both are its own.
func (l *Lister) replace(sandboxes []sandbox, containers []container) {
	pods := make(map[string]*attribution.Pod, len(sandboxes))
	born := make(map[string]int64, len(sandboxes))
	bySandbox := make(map[string]string, len(sandboxes))
	for _, s := range sandboxes {
		bySandbox[s.id] = s.uid
		if p := pods[s.uid]; p == nil || s.created > born[s.uid] {
			pods[s.uid], born[s.uid] = l.pod(&s), s.created
		}
	}
	byContainer := make(map[string]*attribution.Pod, len(containers))
	for _, c := range containers {
		if p := pods[bySandbox[c.sandbox]]; p != nil {
			p.Containers = append(p.Containers, attribution.Container{Name: c.name, ID: c.id})
			byContainer[c.id] = p
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pods, l.byContainer = pods, byContainer
}

func (l *Lister) pod(s *sandbox) *attribution.Pod {
	p := &attribution.Pod{
		UID: s.uid, Name: s.name, Namespace: s.namespace, Resolved: true,
		Labels: make(map[string]string), Annotations: make(map[string]string),
	}
	for k, v := range s.labels {
		if !strings.HasPrefix(k, "io.kubernetes.pod.") { // the kubelet's own
			p.Labels[k] = v
		}
	}
	for k, v := range s.annotations {
		if l.keep(k) {
			p.Annotations[k] = v
		}
	}
	p.Workload, p.Controller = workload(p.Name, p.Labels, time.Unix(0, s.created))
	return p
}

// workload tells a pod's controller by the labels and the name that the controllers
// of Kubernetes give their pods.
func workload(pod string, labels map[string]string, born time.Time) (names map[string]string, controller string) {
	stem := pod
	if i := strings.LastIndexByte(pod, '-'); i > 0 {
		stem = pod[:i]
	}
	hash := labels["pod-template-hash"]
	job := labels["batch.kubernetes.io/job-name"]
	switch {
	case hash != "" && strings.HasSuffix(stem, "-"+hash):
		name := strings.TrimSuffix(stem, "-"+hash)
		return map[string]string{"k8s.replicaset.name": stem, "k8s.deployment.name": name}, name
	case job != "":
		names = map[string]string{"k8s.job.name": job}
		if cron, ok := attribution.CronJobOf(job, born); ok {
			names["k8s.cronjob.name"] = cron
			return names, cron
		}
		return names, job
	case labels["statefulset.kubernetes.io/pod-name"] == pod:
		return map[string]string{"k8s.statefulset.name": stem}, stem
	case labels["controller-revision-hash"] != "" && labels["pod-template-generation"] != "":
		return map[string]string{"k8s.daemonset.name": stem}, stem
	}
	return nil, ""
}

// raw passes messages through as they are on the wire.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error) { return v.([]byte), nil }

func (raw) Unmarshal(b []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), b...)
	return nil
}

func (raw) Name() string { return "proto" }
