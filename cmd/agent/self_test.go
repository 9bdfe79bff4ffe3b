package main

import (
	"testing"
	"time"

	"github.com/tollwire/tollwire/decoder"
	"github.com/tollwire/tollwire/flow"
)

// A scrape waits for no shard: it has the busy one's counts of before.
func TestScrapeWhileBusy(t *testing.T) {
	push := func(s *shard) {
		s.Push(&flow.Data{Kind: flow.KindData, Conn: flow.Conn{Proc: flow.Proc{PID: 1}, Key: 1, Gen: 1}, Payload: []byte("GET")})
	}
	busy, free, never := &shard{Decoder: decoder.New(decoder.Config{})}, &shard{Decoder: decoder.New(decoder.Config{})}, &shard{Decoder: decoder.New(decoder.Config{})}
	p := &pipeline{decoders: []*shard{busy, free, never}}
	never.Lock() // since before anyone asked
	push(busy)
	push(free)
	if n := p.decoded().Pushed; n != 6 {
		t.Errorf("%d bytes were pushed, want 6", n)
	}
	busy.Lock()
	push(busy)
	push(free)
	got := make(chan decoder.Stats, 1)
	go func() { got <- p.decoded() }()
	select {
	case all := <-got:
		if all.Pushed != 9 || all.Connections != 2 {
			t.Errorf("%d bytes on %d connections, want 9 on 2", all.Pushed, all.Connections)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the scrape waits for the busy shard")
	}
	for _, s := range p.decoders {
		s.Close()
	}
}
