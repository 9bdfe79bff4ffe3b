package http2

import (
	"golang.org/x/net/http2"

	"github.com/tollwire/tollwire/decoder/exchange"
)

// Looks reports whether b, the beginning of a segment, looks like frames: whole ones
// that follow each other to its end, or to a last one that reaches beyond it.
func Looks(b []byte) bool { return plausible(b) }

// maxDefault is SETTINGS_MAX_FRAME_SIZE unless declared otherwise. Hardly anyone does,
// and where bytes have to be guessed a larger one is no frame.
const maxDefault = 16 << 10

// plausible walks the frames that b would be made of.
func plausible(b []byte) bool {
	for n := 0; ; n++ {
		if len(b) < headerSize {
			return n > 0
		}
		h := parseHeader(b)
		if b[5]&0x80 != 0 || !possible(h) {
			return false
		}
		b = b[headerSize:]
		if int(h.length) >= len(b) {
			return true
		}
		b = b[h.length:]
	}
}

// possible reports whether a frame may have that header.
func possible(h header) bool {
	if h.length > maxDefault || h.id > 1<<24 {
		return false
	}
	of := func(flags http2.Flags) bool { return h.flags&^flags == 0 }
	switch h.kind {
	case http2.FrameData:
		return h.id > 0 && of(http2.FlagDataEndStream|http2.FlagDataPadded)
	case http2.FrameHeaders:
		return h.id > 0 && h.length > 0 && of(http2.FlagHeadersEndStream|http2.FlagHeadersEndHeaders|http2.FlagHeadersPadded|http2.FlagHeadersPriority)
	case http2.FramePriority:
		return h.id > 0 && h.length == 5 && of(0)
	case http2.FrameRSTStream:
		return h.id > 0 && h.length == 4 && of(0)
	case http2.FrameSettings:
		return h.id == 0 && h.length%6 == 0 && of(http2.FlagSettingsAck) && (of(0) || h.length == 0)
	case http2.FramePushPromise:
		return h.id > 0 && h.length > 4 && of(http2.FlagPushPromiseEndHeaders|http2.FlagPushPromisePadded)
	case http2.FramePing:
		return h.id == 0 && h.length == 8 && of(http2.FlagPingAck)
	case http2.FrameGoAway:
		return h.id == 0 && h.length >= 8 && of(0)
	case http2.FrameWindowUpdate:
		return h.length == 4 && of(0)
	case http2.FrameContinuation:
		return h.id > 0 && of(http2.FlagContinuationEndHeaders)
	}
	return false
}

// resync skips to where frames seem to begin: at the start of a segment first, because
// programs write whole frames, then anywhere inside of it. It reports false at the end.
func (d *direction) resync() bool {
	for {
		w, err := d.r.Window()
		if err == exchange.ErrLost {
			n, _ := d.r.Hole()
			d.r.Fill(n)
			continue
		}
		if err != nil {
			return false
		}
		if len(w) >= headerSize && plausible(w) {
			return true
		}
		for i := 1; i+2*headerSize <= len(w); i++ {
			if chained(w[i:]) {
				d.r.Discard(i)
				return true
			}
		}
		d.r.Discard(len(w))
	}
}

// chained reports whether b begins with two frames or more, to its end.
func chained(b []byte) bool {
	h := parseHeader(b)
	if b[5]&0x80 != 0 || !possible(h) {
		return false
	}
	rest := b[headerSize:]
	if int(h.length)+headerSize > len(rest) {
		return int(h.length) == len(rest)
	}
	return plausible(rest[h.length:])
}
