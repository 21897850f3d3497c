// Command flannelctl shows what the network does on this host and in the cluster, changes leases and configuration, finds what
// is wrong, and removes everything without a trace. It asks the daemon on its socket, and the store where the daemon cannot answer.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"flanneld/api"
)

// version is set by the linker.
var version = "unknown"

// Exit codes that scripts may rely on.
const (
	exitFailure  = 1 // what was asked for was not done
	exitUsage    = 2 // flags or arguments make no sense
	exitNotOK    = 3 // status: not ready; peers: some fail; doctor: a check failed
	exitNoDaemon = 4 // no daemon answers on the socket
)

// errNotOK says that the answer was printed, and is no good one.
var errNotOK = errors.New("not ok")

// usageError is an error of whoever typed the command.
type usageError struct{ error }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	os.Exit(realMain(ctx))
}

func realMain(ctx context.Context) int {
	root := newRoot()
	err := root.ExecuteContext(ctx)
	usage := usageError{}
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errNotOK):
		return exitNotOK
	}
	fmt.Fprintln(os.Stderr, "flannelctl:", err)
	switch {
	case errors.Is(err, api.ErrNoDaemon):
		fmt.Fprintln(os.Stderr, "hint: is flanneld running, and is this its -subnet-file? \"flannelctl doctor\" works without it")
		return exitNoDaemon
	case errors.As(err, &usage):
		return exitUsage
	}
	return exitFailure
}

// newRoot returns the whole tree of commands.
func newRoot() *cobra.Command {
	a := newApp()
	root := &cobra.Command{
		Use:   "flannelctl",
		Short: "See, ask, change and remove the overlay network of this host",
		Long: `flannelctl shows what the network does on this host and in the cluster, changes leases and
configuration, finds what is wrong, and removes everything without a trace.

Exit codes: 0 done; 1 not done; 2 wrong usage; 3 the answer is bad (status: not ready, peers: some
fail, doctor: a check failed); 4 no daemon answers on the socket.`,
		Version: version, SilenceUsage: true, SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	a.flags(root.PersistentFlags())
	root.PersistentPreRunE = func(*cobra.Command, []string) error { return a.check() }
	root.AddCommand(
		newStatus(a), newPeers(a), newLeases(a), newNetwork(a), newDrain(a), newCleanup(a), newDoctor(a), newBundle(a), newDemo(a),
	)
	return root
}

// arguments is cobra's check of positional arguments, as an error of usage.
func arguments(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError{fmt.Errorf("%w\nusage: %s", err, cmd.UseLine())}
		}
		return nil
	}
}
