package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/tollwire/tollwire/account"
	"github.com/tollwire/tollwire/attribution"
	"github.com/tollwire/tollwire/export/jsonl"
	"github.com/tollwire/tollwire/flow"
	"github.com/tollwire/tollwire/har"
	"github.com/tollwire/tollwire/llm"
	"github.com/tollwire/tollwire/pricing"
)

func replayCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "replay FILE.har...",
		Short: "Send recorded calls through the pipeline and print their records",
		Long: `Replay turns each entry of an HTTP archive (.har, .har.gz) back into HTTP bytes, sends
them through stream, framing and vendor like any capture, and prints one JSON line for each
entry that is a model call, in order. It needs no root and no kernel.

An entry's _id comes back as tollwire.source_id. Where content._chunks gives the sizes of the
pieces a body came in, it is fed in those pieces. The recording has no times, so the timing
keys are absent; time is the entry's startedDateTime.`,
		Example: "  tollwire replay calls.har.gz | jq -r '.[\"tollwire.cost.usd\"]'",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, files []string) error {
			cfg, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			log, err := cfg.Log.logger()
			if err != nil {
				return err
			}
			prices, err := cfg.Pricing.open(log)
			if err != nil {
				return err
			}
			key, err := cfg.key() // one for all files: the tries of a call may be in two
			if err != nil {
				return err
			}
			for _, f := range files {
				if err := replay(cfg, key, log, prices, f, cmd.OutOrStdout()); err != nil {
					return fmt.Errorf("replay %s: %w", f, err)
				}
			}
			return nil
		},
	}
	cmd.Flags().StringP("config", "c", "", "YAML configuration (env TOLLWIRE_CONFIG)")
	defaults().flags(cmd.Flags())
	return cmd
}

func replay(cfg *Config, key []byte, log *slog.Logger, prices *pricing.Store, path string, w io.Writer) error {
	archive, err := har.Open(path)
	if err != nil {
		return err
	}
	src := &recording{archive: archive, log: log}
	defer src.Close()
	out := jsonl.New(w)
	p := &pipeline{
		log:     log,
		source:  src,
		decoder: cfg.decoder(key, prices.API, log),
		owners:  nobody{},
		settle:  account.Config{},
		prices:  prices,
		stamp:   src.stamp,
		export:  []exporter{out},
		queue:   1,
	}
	return errors.Join(p.run(), src.bad, out.Close(context.Background()))
}

// recording is a source made of an archive: each entry is a connection of its own,
// seen from the client's end.
type recording struct {
	archive *har.Reader
	log     *slog.Logger
	bad     error // of entries that could not be used

	conn    flow.Conn
	pending []flow.Data

	mu     sync.Mutex
	recent [8]origin // by generation; more than the queue lets be on their way
}

// origin is what a record keeps of the entry it was made from.
type origin struct {
	conn flow.Conn
	id   string
	at   time.Time
}

func (r *recording) Shards() int { return 1 }

func (r *recording) SetVerdict(flow.Conn, uint32, flow.Verdict) error { return nil }

func (r *recording) Close() error { return r.archive.Close() }

func (r *recording) Read(_ int, d *flow.Data) error {
	for len(r.pending) == 0 {
		if err := r.next(); err != nil {
			return err
		}
	}
	*d, r.pending = r.pending[0], r.pending[1:]
	return nil
}

// next turns the next entry into the records that the ring would have held.
func (r *recording) next() error {
	e, err := r.archive.Next()
	var spoiled *har.EntryError
	switch {
	case errors.Is(err, io.EOF):
		return os.ErrClosed
	case errors.As(err, &spoiled):
		r.bad = errors.Join(r.bad, err)
		return nil
	case err != nil:
		return err
	}
	request, err := e.RequestWire()
	if err != nil {
		r.bad = errors.Join(r.bad, err)
		return nil
	}
	response, err := e.ResponseWire()
	if err != nil {
		r.bad = errors.Join(r.bad, err)
		return nil
	}
	r.conn.Gen++
	r.conn.Key = r.conn.Gen
	r.mu.Lock()
	r.recent[r.conn.Gen%uint64(len(r.recent))] = origin{r.conn, e.ID, e.Started}
	r.mu.Unlock()
	r.add(flow.Write, request)
	r.add(flow.Read, response)
	r.pending = append(r.pending, flow.Data{Kind: flow.KindClose, Conn: r.conn, Source: flow.SourceReplay})
	return nil
}

func (r *recording) add(dir flow.Dir, pieces [][]byte) {
	var pos uint64
	for i, p := range pieces {
		r.pending = append(r.pending, flow.Data{
			Kind: flow.KindData, Conn: r.conn, Source: flow.SourceReplay, Dir: dir,
			Pos: pos, Exchange: 1, Head: i == 0, Payload: p,
		})
		pos += uint64(len(p))
	}
}

// stamp gives a call the name and the date of its entry.
func (r *recording) stamp(c *llm.Call) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.recent[c.Conn.Gen%uint64(len(r.recent))]
	if o.conn != c.Conn {
		return time.Time{}
	}
	c.SourceID = o.id
	return o.at
}

// nobody owns what was recorded elsewhere.
type nobody struct{}

func (nobody) Observe(flow.Proc, uint64) {}
func (nobody) Owner(flow.Proc, uint64, attribution.Evidence) attribution.Owner {
	return attribution.Owner{}
}
