// Package kube knows the pods of one node, from the API server. It watches them,
// keeps the few fields that attribution uses, and finds what their controllers
// belong to. While the API server is away, slow or refuses, what was known stays.
package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"github.com/tollwire/tollwire/attribution"
)

// ErrNotInCluster is returned by New when no kubeconfig is given and the program
// does not run in a pod.
var ErrNotInCluster = errors.New("not in a cluster, and no kubeconfig given")

// Config says which API server is asked, and for what.
type Config struct {
	Kubeconfig string // path; empty: that of the pod the program runs in
	Node       string // name of the node whose pods are watched
	// Keep says which annotations are kept; nil: those of resource.opentelemetry.io/.
	Keep func(annotation string) bool
	// Tombstone is how long a pod that was deleted is still known; 0: five minutes.
	Tombstone time.Duration
	// RefusedFor is how long a refusal to name a controller's owner stands: an API server
	// that has just started refuses what it allows a moment later. 0: half a minute.
	RefusedFor time.Duration
	Logger     *slog.Logger
}

// Watcher is the pods of one node. It is an attribution.Pods.
type Watcher struct {
	log    *slog.Logger
	node   string
	client *rest.RESTClient
	params runtime.ParameterCodec
	pods   *store
	owners *owners
	errs   [numFailures]atomic.Uint64
	// trouble is true from a failure on, until the API server answers again.
	trouble atomic.Bool
}

var _ attribution.Pods = (*Watcher)(nil)

// listTimeout bounds one list, so that an API server that accepts and never
// answers is asked again.
const listTimeout = time.Minute

// New makes a Watcher; Run starts it.
func New(c Config) (*Watcher, error) {
	if c.Node == "" {
		return nil, errors.New("node name is empty: want the name under which the API server knows this machine")
	}
	var rc *rest.Config
	var err error
	if c.Kubeconfig != "" {
		rc, err = clientcmd.BuildConfigFromFlags("", c.Kubeconfig)
	} else if rc, err = rest.InClusterConfig(); errors.Is(err, rest.ErrNotInCluster) {
		err = ErrNotInCluster
	}
	if err != nil {
		return nil, fmt.Errorf("configure the API client: %w", err)
	}
	return newWatcher(rc, c)
}

func newWatcher(rc *rest.Config, c Config) (*Watcher, error) {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Tombstone == 0 {
		c.Tombstone = 5 * time.Minute
	}
	if c.RefusedFor == 0 {
		c.RefusedFor = 30 * time.Second
	}
	// Only the types that are asked for: client-go's own scheme links all of them in.
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("register pods: %w", err)
	}
	rc = rest.CopyConfig(rc)
	rc.APIPath = "/api"
	rc.GroupVersion = &corev1.SchemeGroupVersion
	rc.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	rc.ContentType = runtime.ContentTypeProtobuf
	rc.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	rc.UserAgent = "tollwire"
	w := &Watcher{
		log:    c.Logger,
		node:   c.Node,
		params: runtime.NewParameterCodec(scheme),
	}
	rc.Wrap(w.counted)
	client, err := rest.RESTClientFor(rc)
	if err != nil {
		return nil, fmt.Errorf("make the API client: %w", err)
	}
	w.client = client
	w.owners = newOwners(w, c.RefusedFor)
	w.pods = newStore(w.owners, c.Keep, c.Tombstone)
	return w, nil
}

// Run watches until ctx is done. Whatever the API server answers is tried again, here and
// not by each request, at growing intervals up to five seconds and as much again by chance, so that the
// agents of a large cluster do not come back all at once.
func (w *Watcher) Run(ctx context.Context) {
	ctx = klog.NewContext(ctx, logr.FromSlogHandler(quiet{w.log.Handler()}))
	var asking sync.WaitGroup
	asking.Go(func() { w.owners.run(ctx, w.pods.owned) })
	defer asking.Wait()
	cache.NewReflectorWithOptions(&cache.ListWatch{
		ListWithContextFunc:  w.list,
		WatchFuncWithContext: w.watch,
	}, &corev1.Pod{}, w.pods, cache.ReflectorOptions{
		Name:    "pods of " + w.node,
		Backoff: &wait.Backoff{Duration: 500 * time.Millisecond, Factor: 2, Jitter: 1, Steps: 5, Cap: 5 * time.Second},
	}).RunWithContext(ctx)
}

// Pod returns the pod with this uid, or the one that runs this container.
func (w *Watcher) Pod(uid, containerID string) (*attribution.Pod, bool) {
	return w.pods.find(uid, containerID)
}

// Synced says whether the API server has once named all pods of the node.
func (w *Watcher) Synced() bool { return w.pods.synced.Load() }

func (w *Watcher) options(o metav1.ListOptions) *metav1.ListOptions {
	o.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", w.node).String()
	return &o
}

func (w *Watcher) list(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	var pods corev1.PodList
	err := w.client.Get().MaxRetries(0).Resource("pods").VersionedParams(w.options(o), w.params).Do(ctx).Into(&pods)
	if err != nil {
		w.failed("list pods", err)
		return nil, err
	}
	w.trouble.Store(false)
	return &pods, nil
}

func (w *Watcher) watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	o.Watch = true
	failed := func(err error) {
		// A server that refuses to stream the list is asked for a plain one next; if that
		// fails, it says why.
		if f := failureOf(err); o.SendInitialEvents == nil || f != OtherFailure && f != Forbidden {
			w.failed("watch pods", err)
		}
	}
	s, err := w.client.Get().MaxRetries(0).Resource("pods").VersionedParams(w.options(o), w.params).Watch(ctx)
	if err != nil {
		failed(err)
		return nil, err
	}
	return watch.Filter(s, func(e watch.Event) (watch.Event, bool) {
		if e.Type == watch.Error {
			failed(apierrors.FromObject(e.Object))
		} else {
			w.trouble.Store(false)
		}
		return e, true
	}), nil
}

// Failure is a kind of answer that was none.
type Failure int

const (
	Unreachable Failure = iota // no connection, or it broke
	Slow                       // no answer in time
	Forbidden                  // 401, 403
	Expired                    // 410: the watch must begin anew
	Throttled                  // 429
	OtherFailure
	numFailures
)

var failureNames = [numFailures]string{"unreachable", "timeout", "forbidden", "expired", "throttled", "other"}

func (f Failure) String() string { return failureNames[f] }

func failureOf(err error) Failure {
	var status apierrors.APIStatus
	var network net.Error // of a TLS handshake, too
	switch {
	case errors.As(err, &network) && network.Timeout(), errors.Is(err, context.DeadlineExceeded), apierrors.IsTimeout(err), apierrors.IsServerTimeout(err):
		return Slow
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		return Forbidden
	case apierrors.IsGone(err), apierrors.IsResourceExpired(err):
		return Expired
	case apierrors.IsTooManyRequests(err):
		return Throttled
	case errors.As(err, &status):
		return OtherFailure
	}
	return Unreachable
}

// roundTripper is a function that sends a request.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// counted counts the requests that never reach an answer. To client-go a watch that ends
// so is an empty one, and no failure.
func (w *Watcher) counted(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		answer, err := next.RoundTrip(r)
		if err != nil {
			w.count("ask the API server for "+r.URL.Path, err)
		}
		return answer, err
	})
}

// failed counts and logs an answer that was none. Where there is none at all, counted
// has done so.
func (w *Watcher) failed(what string, err error) {
	if !errors.As(err, new(*url.Error)) {
		w.count(what, err)
	}
}

// count counts and logs a failure: the first of a row as a warning.
func (w *Watcher) count(what string, err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	f := failureOf(err)
	w.errs[f].Add(1)
	level := slog.LevelDebug
	if f != Expired && !w.trouble.Swap(true) { // 410 is part of the protocol
		level = slog.LevelWarn
	}
	w.log.Log(context.Background(), level, what, "node", w.node, "failure", f.String(), "err", err)
}

// Stats counts what a Watcher knows and what it was refused.
type Stats struct {
	Pods     int // alive
	Deleted  int // still known
	Synced   bool
	Failures map[string]uint64 // by kind of failure
}

// Stats returns the counters.
func (w *Watcher) Stats() Stats {
	s := Stats{Synced: w.Synced(), Failures: make(map[string]uint64, numFailures)}
	s.Pods, s.Deleted = w.pods.count()
	for f := range numFailures {
		s.Failures[f.String()] = w.errs[f].Load()
	}
	return s
}

// Resource is a path of the API and what is done with it.
type Resource struct {
	Group, Resource string
	Verbs           []string
}

// Wants is every permission that a Watcher uses: what the ClusterRole grants.
func Wants() []Resource {
	return []Resource{
		{"", "pods", []string{"list", "watch"}},
		{"apps", "replicasets", []string{"get"}},
		{"batch", "jobs", []string{"get"}},
	}
}

// transient says whether a request may succeed when it is tried again.
func transient(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return true
	}
	code := status.Status().Code
	return code == http.StatusTooManyRequests || code >= 500
}

// quiet passes on client-go's warnings and errors as debugging: each of them is
// reported here already, with what it means.
type quiet struct{ slog.Handler }

func (q quiet) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelInfo && q.Handler.Enabled(ctx, slog.LevelDebug)
}

func (q quiet) Handle(ctx context.Context, r slog.Record) error {
	r.Level = slog.LevelDebug
	return q.Handler.Handle(ctx, r)
}

func (q quiet) WithAttrs(a []slog.Attr) slog.Handler { return quiet{q.Handler.WithAttrs(a)} }
func (q quiet) WithGroup(name string) slog.Handler   { return quiet{q.Handler.WithGroup(name)} }
