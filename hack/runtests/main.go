// Command runtests runs suites of Go tests side by side, reports on all of them together, and leaves nothing of them
// behind.
//
// A suite is one argument: the arguments of "go test", split at blanks, after the folder of a nested module and a colon
// if it has one:
//
//	runtests "./... -timeout 10m" "dist/cloud: ./..."
//
// It fails if a test fails, if a test takes long and its comment does not say why (a line that starts with "Slow:"), or
// if a process, a mount or a file of a test is still there in the end.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// grace is how long the tests may take to clean up after they were interrupted.
const grace = 20 * time.Second

func main() {
	top := flag.Int("top", 20, "print so many of the slowest tests")
	most := flag.Duration("most", 30*time.Second, "a test that takes longer needs a reason in its comment; 0: none does")
	verbose := flag.Bool("v", false, "print each test that ends")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	start := time.Now()
	r := newReport(os.Stdout, *verbose)
	ok, err := run(ctx, r, flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "runtests:", err)
		os.Exit(1)
	}
	if ctx.Err() != nil {
		fmt.Println("interrupted")
		os.Exit(130)
	}
	r.slowest(*top)
	ok = r.explained(os.DirFS("."), *most) && ok
	r.failures()
	fmt.Printf("took %s\n", time.Since(start).Round(time.Second))
	if !ok {
		fmt.Println("FAIL")
		os.Exit(1)
	}
}

// run runs all suites at once in a temporary folder of their own, and reports whether they passed and left nothing
// behind.
func run(ctx context.Context, r *report, suites []string) (ok bool, err error) {
	release, err := ofMachine.hold()
	if err != nil {
		return false, err
	}
	defer release()
	t, err := newTraces()
	if err != nil {
		return false, err
	}
	var all sync.WaitGroup
	failed := make([]error, len(suites))
	for i, suite := range suites {
		all.Go(func() { failed[i] = runSuite(ctx, r, suite, t.dir) })
	}
	all.Wait()
	left := t.remove()
	ok = r.passed()
	for i, err := range failed {
		if err != nil {
			ok = false
			r.fail("go test %s: %v\n", suites[i], err)
		}
	}
	// A test that fails or is interrupted may leave something; it is removed all the same.
	if ok && ctx.Err() == nil && len(left) > 0 {
		ok = false
		r.fail("left behind by the tests:\n\t%s\n", strings.Join(left, "\n\t"))
	}
	return ok, nil
}

// runSuite runs one suite. The error of a suite in which only tests have failed is nil: the report has them.
func runSuite(ctx context.Context, r *report, suite, tmp string) error {
	dir, args, nested := strings.Cut(suite, ":")
	if !nested {
		dir, args = ".", suite
	}
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-json", "-vet=off"}, strings.Fields(args)...)...)
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	// Ctrl-C reaches the tests by way of this program alone, once.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = grace
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	r.read(out)
	_, _ = io.Copy(io.Discard, out)
	err = cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 && !r.passed() {
		return nil
	}
	return err
}

// lockName is the file in the temporary folder of a run that is locked while the run lasts. Its name also says whose
// folder that is.
const lockName = "flanneld-tests.lock"

// traces is what tests may leave behind: files in the temporary folder, mounts on them, network namespaces of labs
// there, and processes, which become children of this one when their parents end.
type traces struct {
	dir  string
	lock *os.File
}

// dirPrefix starts the name of the folder, which is short: sockets lie below, whose paths the kernel limits to 107
// bytes.
const dirPrefix = "ft"

// makeDir makes a folder with a short random name.
func makeDir() (string, error) {
	for {
		dir := filepath.Join(os.TempDir(), dirPrefix+strings.ToLower(rand.Text()[:4]))
		if err := os.Mkdir(dir, 0o755); !errors.Is(err, os.ErrExist) {
			return dir, err
		}
	}
}

func newTraces() (*traces, error) {
	if err := adoptOrphans(); err != nil {
		return nil, err
	}
	sweep()
	dir, err := makeDir()
	if err != nil {
		return nil, err
	}
	// The lock gets its name when it is held, so that sweep of another run does not take the folder for one that nobody
	// uses.
	name := filepath.Join(dir, lockName)
	lock, err := os.Create(name + ".new")
	if err == nil {
		err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX)
	}
	if err == nil {
		err = os.Rename(lock.Name(), name)
	}
	return &traces{dir, lock}, err
}

// remove removes all, and returns what there was.
func (t *traces) remove() (left []string) {
	left = append(endOrphans(), removeBelow(t.dir)...)
	_ = t.lock.Close()
	return left
}

// sweep removes what a run that was killed has left: nobody holds its lock.
func sweep() {
	locks, _ := filepath.Glob(filepath.Join(os.TempDir(), dirPrefix+"????", lockName))
	for _, name := range locks {
		lock, err := os.Open(name)
		if err != nil {
			continue
		}
		if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			removeBelow(filepath.Dir(name))
		}
		_ = lock.Close()
	}
}
