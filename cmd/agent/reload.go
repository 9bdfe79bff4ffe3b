package main

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tollwire/tollwire/attribution"
)

// reloader follows the configuration's file by its content: a ConfigMap's swapped
// links, an editor's rename and a network file system are all the same to it. Of
// what changes, the rules by which calls are booked come into force.
type reloader struct {
	path  string
	load  func() (*Config, error) // the whole configuration, as at start
	apply func(attribution.Config) error
	log   *slog.Logger
	first *Config // at start

	force   attribution.Config // in force
	looked  [sha256.Size]byte  // content that was looked at last
	missing string             // why the file could not be read at the last look
	reloads atomic.Uint64
	errors  atomic.Uint64
}

// reloadEvery is how often the file is looked at.
const reloadEvery = 10 * time.Second

func newReloader(path string, first *Config, load func() (*Config, error), apply func(attribution.Config) error, log *slog.Logger) *reloader {
	return &reloader{path: path, load: load, apply: apply, log: log.With("file", path), first: first, force: first.Attribution}
}

// run looks at the file until ctx is done.
func (r *reloader) run(ctx context.Context) {
	if r.path == "" {
		return
	}
	t := time.NewTicker(reloadEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			r.look()
		}
	}
}

// look reads the file once. Content that is wrong is refused, its fault logged once,
// and what is in force stays.
func (r *reloader) look() {
	b, err := os.ReadFile(r.path)
	if err != nil {
		if why := err.Error(); why != r.missing {
			r.missing = why
			r.errors.Add(1)
			r.log.Error("configuration cannot be read; the one in force stays", "err", err)
		}
		return
	}
	r.missing = ""
	hash := sha256.Sum256(b)
	if hash == r.looked {
		return
	}
	r.looked = hash
	c, err := r.load()
	if err == nil && !reflect.DeepEqual(c.Attribution, r.force) {
		if err = r.apply(c.Attribution); err == nil {
			r.force = c.Attribution
			r.reloads.Add(1)
			r.log.Info("rules of attribution changed", "rules", len(c.Attribution.Rules))
		}
	}
	if err != nil {
		r.errors.Add(1)
		r.log.Error("configuration refused; the one in force stays", "err", err)
		return
	}
	if late := r.late(c); len(late) > 0 {
		r.log.Warn("these come into force when the agent is restarted", "keys", strings.Join(late, ", "))
	}
}

// late names what differs from the start and is read only then.
func (r *reloader) late(c *Config) (keys []string) {
	was, is := reflect.ValueOf(*r.first), reflect.ValueOf(*c)
	for i := range was.NumField() {
		f := was.Type().Field(i)
		if key := f.Tag.Get("yaml"); key != "attribution" && !reflect.DeepEqual(was.Field(i).Interface(), is.Field(i).Interface()) {
			keys = append(keys, key)
		}
	}
	a, b := r.first.Attribution, c.Attribution
	for _, k := range []struct {
		key     string
		was, is any
	}{
		{"proc", a.Proc, b.Proc}, {"cgroup_root", a.CgroupRoot, b.CgroupRoot}, {"host_root", a.HostRoot, b.HostRoot},
		{"environ", a.Environ, b.Environ}, {"pod_labels", a.PodLabels, b.PodLabels}, {"wait", a.Wait, b.Wait},
		{"graph.label", a.Graph.Label, b.Graph.Label}, {"node.label", a.Node.Label, b.Node.Label},
	} {
		if !reflect.DeepEqual(k.was, k.is) {
			keys = append(keys, "attribution."+k.key)
		}
	}
	// What the decoder keeps of a request was settled when it was made.
	kept := r.first.Attribution.Headers()
	for _, h := range r.first.Decode.AllowHeaders {
		kept = append(kept, strings.ToLower(h))
	}
	for _, h := range b.Headers() {
		if !slices.Contains(kept, h) {
			keys = append(keys, "attribution: header "+h)
		}
	}
	kept = r.first.Attribution.BaggageKeys()
	for _, k := range b.BaggageKeys() {
		if !slices.Contains(kept, k) {
			keys = append(keys, "attribution: baggage "+k)
		}
	}
	return keys
}
