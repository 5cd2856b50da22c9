// Command kstatus says what sigs.k8s.io/cli-utils, the library behind Flux's and kpt's
// health checks, makes of Kubernetes objects.
//
// It reads a stream of JSON objects on stdin and prints one JSON line for each:
// {"name","status","message"}, with status one of InProgress, Failed, Current, Terminating and
// NotFound. Used by the tests only.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

type line struct {
	Name    string `json:"name"`
	Status  string `json:"status"`
	Message string `json:"message"`
}

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "kstatus:", err)
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer) error {
	decoder := json.NewDecoder(in)
	encoder := json.NewEncoder(out)
	for {
		var raw json.RawMessage
		if err := decoder.Decode(&raw); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		// Not a plain decode: the library wants whole numbers as int64.
		object := &unstructured.Unstructured{}
		if err := object.UnmarshalJSON(raw); err != nil {
			return err
		}
		result, err := status.Compute(object)
		if err != nil {
			return fmt.Errorf("%s: %w", object.GetName(), err)
		}
		said := line{object.GetName(), result.Status.String(), result.Message}
		if err := encoder.Encode(said); err != nil {
			return err
		}
	}
}
