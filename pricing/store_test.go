package pricing

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tollwire/tollwire/llm"
)

func overlayOf(price string) string {
	return "format: tollwire-prices/1\ndate: 2026-12-01\nproviders:\n  - id: openai\n    models:\n      - {id: mine, prices: {per_mtok: {input: " + price + "}}}\n"
}

// configMap lays files out as the kubelet does: links through ..data to a directory.
type configMap struct {
	dir string
	n   int
}

func (c *configMap) swap(t *testing.T, content string) {
	t.Helper()
	c.n++
	real := fmt.Sprintf("..2026_%d", c.n)
	must(t, os.Mkdir(filepath.Join(c.dir, real), 0o755))
	must(t, os.WriteFile(filepath.Join(c.dir, real, "prices.yaml"), []byte(content), 0o644))
	must(t, os.Symlink(real, filepath.Join(c.dir, "..data_tmp")))
	must(t, os.Rename(filepath.Join(c.dir, "..data_tmp"), filepath.Join(c.dir, "..data")))
	if c.n == 1 {
		must(t, os.Symlink("..data/prices.yaml", filepath.Join(c.dir, "prices.yaml")))
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestStoreFollowsAConfigMap(t *testing.T) {
	cm := configMap{dir: t.TempDir()}
	cm.swap(t, overlayOf("1"))
	var log strings.Builder
	s, err := Open(Config{Files: []string{filepath.Join(cm.dir, "prices.yaml")}}, slog.New(slog.NewTextHandler(&log, nil)))
	must(t, err)
	price := func() string {
		u := new(llm.Usage)
		u.Set(llm.Input, 1e6)
		return s.Price(Query{Provider: "openai", Model: "mine", Usage: u}).USD.String()
	}
	first := s.Book().Version()
	must(t, s.Reload())
	if price() != "1" || s.Status().Reloads != 0 {
		t.Fatal("nothing has changed", price(), s.Status())
	}

	cm.swap(t, overlayOf("2"))
	must(t, s.Reload())
	second := s.Book().Version()
	if price() != "2" || second == first || s.Status().Reloads != 1 || s.Status().Version != second {
		t.Fatal(price(), second, s.Status())
	}

	cm.swap(t, overlayOf("expensive"))
	for range 3 {
		if err := s.Reload(); err == nil || !strings.Contains(err.Error(), `prices.yaml:6:47: "expensive": not a decimal number`) {
			t.Fatal(err)
		}
	}
	if price() != "2" || s.Book().Version() != second {
		t.Fatal("the old book must stay")
	}
	if st := s.Status(); st.Errors != 1 || !strings.Contains(st.Refused, "prices.yaml:6:47") || strings.Count(log.String(), "price book refused") != 1 {
		t.Fatalf("one refusal, said once: %+v\n%s", st, log.String())
	}

	must(t, os.Remove(filepath.Join(cm.dir, "..data")))
	if s.Reload() == nil || price() != "2" {
		t.Fatal("a file that is gone leaves the book in force")
	}
	cm.swap(t, overlayOf("2"))
	must(t, s.Reload())
	if st := s.Status(); st.Refused != "" || st.Version != second {
		t.Fatalf("the same content again is in force already: %+v", st)
	}
}

func TestStoreWatches(t *testing.T) {
	file := filepath.Join(t.TempDir(), "p.yaml")
	must(t, os.WriteFile(file, []byte(overlayOf("1")), 0o644))
	s, err := Open(Config{Files: []string{file}, NoDefault: true, Poll: 5 * time.Millisecond}, slog.New(slog.NewTextHandler(io.Discard, nil)))
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	followed := make(chan *Book, 1)
	wg.Go(func() { s.Watch(ctx, func(b *Book) { followed <- b }) })
	first := s.Book()
	must(t, os.WriteFile(file, []byte(overlayOf("3")), 0o644))
	select {
	case b := <-followed:
		if b == first || b != s.Book() {
			t.Error("it is told of the book that came into force")
		}
	case <-time.After(5 * time.Second):
		t.Fatal("not followed")
	}
	cancel()
	wg.Wait()
}

func TestOpenRefuses(t *testing.T) {
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	if _, err := Open(Config{NoDefault: true}, log); err == nil {
		t.Error("a book of no files")
	}
	if _, err := Open(Config{Files: []string{"/nowhere/prices.yaml"}}, log); err == nil || !strings.Contains(err.Error(), "open price book") {
		t.Error(err)
	}
}

// TestConcurrentUse is for the race detector: calls are priced while the book changes.
func TestConcurrentUse(t *testing.T) {
	file := filepath.Join(t.TempDir(), "p.yaml")
	must(t, os.WriteFile(file, []byte(overlayOf("1")), 0o644))
	s, err := Open(Config{Files: []string{file}, NoDefault: true}, slog.New(slog.NewTextHandler(io.Discard, nil)))
	must(t, err)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			u := new(llm.Usage)
			u.Set(llm.Input, 10)
			for i := range 2000 {
				s.Price(Query{Provider: "openai", Model: fmt.Sprintf("m-%d-%d", g, i%50), Usage: u})
				s.Price(Query{Provider: "openai", Model: "mine", Usage: u})
			}
		})
	}
	for i := range 20 {
		must(t, os.WriteFile(file+".new", []byte(overlayOf(fmt.Sprint(i))), 0o644))
		must(t, os.Rename(file+".new", file))
		must(t, s.Reload())
	}
	wg.Wait()
}
