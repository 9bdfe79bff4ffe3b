package tgi

import (
	"testing"

	"github.com/tollwire/tollwire/decoder/answer/answertest"
	"github.com/tollwire/tollwire/decoder/content"
)

func TestRecordings(t *testing.T) {
	answertest.Run(t, New(content.Config{}), nil, "huggingface-endpoint", "sagemaker")
}

func TestCutsAreNeverExact(t *testing.T) {
	answertest.Cuts(t, New(content.Config{}), 20, "huggingface-endpoint", "sagemaker")
}

func FuzzDecode(f *testing.F) {
	answertest.Fuzz(f, New(content.Config{}), "huggingface-endpoint", "sagemaker")
}
