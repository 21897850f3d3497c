package ip

import (
	"errors"
	"fmt"
	"strings"
)

// OpError is the failure of one operation.
type OpError struct {
	Op  Op
	Err error // unwraps to a syscall.Errno; the kernel's extended message in its text where it gave one
}

func (e *OpError) Error() string { return fmt.Sprintf("%s: %v", e.Op, e.Err) }

func (e *OpError) Unwrap() error { return e.Err }

// OpErrors are the operations of one Apply that failed, in their order. The text names the first few.
type OpErrors []*OpError

// mostErrors bounds how many operations an error names: with the device of ten thousand peers gone, all fail.
const mostErrors = 3

func (e OpErrors) Error() string {
	var b strings.Builder
	for i, op := range e {
		if i == mostErrors {
			fmt.Fprintf(&b, "; and %d more", len(e)-i)
			break
		}
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(op.Error())
	}
	return b.String()
}

// Unwrap returns the single errors.
func (e OpErrors) Unwrap() []error {
	out := make([]error, len(e))
	for i, op := range e {
		out[i] = op
	}
	return out
}

// orNil returns the errors, or nil if there are none.
func (e OpErrors) orNil() error {
	if len(e) == 0 {
		return nil
	}
	return e
}

// FailedOps returns the failed operations that an error joins.
func FailedOps(err error) []*OpError {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var out []*OpError
		for _, e := range joined.Unwrap() {
			out = append(out, FailedOps(e)...)
		}
		return out
	}
	var op *OpError
	if errors.As(err, &op) {
		return []*OpError{op}
	}
	return nil
}

// PeersOnly reports whether an error of Reconcile consists of failed operations on single peers, or is ErrContention:
// what this host itself needs is in place.
func PeersOnly(err error) bool {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			if !PeersOnly(e) {
				return false
			}
		}
		return true
	}
	if errors.Is(err, ErrContention) {
		return true
	}
	var op *OpError
	return errors.As(err, &op) && op.Op.Object.Kind() >= KindFDB
}
