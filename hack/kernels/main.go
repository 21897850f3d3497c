// Command kernels runs tests on kernels of Debian in virtual machines without hardware support, which boot in seconds:
//
//	kernels [-run PATTERN] 6.1 6.12
//
// Programs and tests are built on the host, whose root folder the machine has below a layer in memory: what a test
// changes is gone with the machine. The first process of the machine is this program, too (see guest_linux.go).
//
// The output of a suite is results/VERSION/SUITE.log in the folder of the tool, and logs/ there has the logs of the
// programs of end-to-end tests that have failed.
//
// It goes on where it stopped: a suite that has passed on a kernel with the same programs is not run again. A suite
// that the machine dies of has failed, and another machine runs the rest.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
)

func main() {
	if os.Getpid() == 1 {
		guest()
		return
	}
	o := options{}
	pattern := flag.String("run", "", "run only the suites whose name matches this `pattern`")
	flag.StringVar(&o.tests, "tests", "", "run only the tests that match this `pattern`, as go test -run")
	flag.StringVar(&o.dir, "dir", "build/kernels", "`folder` of kernels, programs and logs")
	flag.Float64Var(&o.scale, "scale", 10, "how many times slower than the host the machine is thought to be")
	flag.BoolVar(&o.built, "built", false, "run the programs that were built the last time")
	flag.BoolVar(&o.again, "again", false, "run also what has passed with the same programs")
	flag.Parse()
	var err error
	if o.run, err = regexp.Compile(*pattern); err != nil || flag.NArg() == 0 {
		fmt.Fprintln(os.Stderr, "usage: kernels [flags] VERSION...", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ok, err := run(ctx, o, flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "kernels:", err)
	}
	if !ok || err != nil {
		fmt.Println("FAIL")
		stop()
		os.Exit(1)
	}
}

// options say what is run, and how.
type options struct {
	run   *regexp.Regexp
	tests string
	dir   string
	scale float64
	built bool
	again bool
}

// run runs the suites on one kernel after the other, prints a table, and reports whether all passed.
func run(ctx context.Context, o options, versions []string) (ok bool, err error) {
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return false, err
	}
	jobs, err := build(ctx, o)
	if err != nil {
		return false, err
	}
	var columns []column
	defer func() { ok = report(os.Stdout, jobs, columns) }()
	for _, version := range versions {
		k, err := fetch(ctx, o.dir, version)
		if err != nil {
			return false, fmt.Errorf("kernel %s: %w", version, err)
		}
		r, err := openRecords(filepath.Join(o.dir, "results", version), k, jobs)
		if err != nil {
			return false, err
		}
		err = onKernel(ctx, k, r, o.again)
		columns = append(columns, column{k.name, r.results})
		if err != nil {
			return false, fmt.Errorf("kernel %s: %w", version, err)
		}
	}
	return ok, nil
}

// maxStarts is how often a machine is started that does not come to its first job.
const maxStarts = 4

// onKernel boots machines until all jobs have a result.
func onKernel(ctx context.Context, k kernel, r *records, again bool) error {
	if again {
		clear(r.results)
	}
	for tries := 1; ; {
		jobs := r.due()
		if len(jobs) == 0 {
			return nil
		}
		results, err := boot(ctx, k, r.dir, jobs)
		if errors.Is(err, errNoStart) && tries < maxStarts && ctx.Err() == nil {
			tries++
			continue
		}
		if ctx.Err() == nil && errors.Is(err, errDied) && len(results) < len(jobs) {
			results, err = append(results, result{Name: jobs[len(results)].Name, Error: errDied.Error()}), nil
		}
		if err := errors.Join(err, r.add(results)); err != nil {
			return err
		}
	}
}
