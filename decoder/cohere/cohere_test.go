package cohere

import (
	"testing"

	"github.com/tollwire/tollwire/decoder/answer/answertest"
	"github.com/tollwire/tollwire/decoder/content"
)

func TestRecordings(t *testing.T) {
	answertest.Run(t, New(content.Config{}), nil, families...)
}

func TestCutsAreNeverExact(t *testing.T) {
	answertest.Cuts(t, New(content.Config{}), 20, families...)
}

var families = []string{"cohere-chat", "cohere-embed", "cohere-generate", "cohere-rerank"}

func FuzzDecode(f *testing.F) {
	answertest.Fuzz(f, New(content.Config{}), families...)
}
