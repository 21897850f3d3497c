package lab

import (
	"context"
	"fmt"
	"os/exec"
)

// FormerCommit is the last commit whose records have no offers: a former version, from which hosts are upgraded and
// beside which they run. A clone must reach back to it.
const FormerCommit = "5f05130fca350b1ddb95019c071a4ce75d67fac7"

// CheckOut puts the source of a commit into a folder, from the history of the repository at root.
func CheckOut(ctx context.Context, root, commit, to string) error {
	for _, args := range [][]string{
		{"clone", "--quiet", "--shared", "--no-checkout", root, to},
		{"-C", to, "checkout", "--quiet", "--detach", commit},
	} {
		if out, err := exec.CommandContext(ctx, "git", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("git %v: %w\n%s", args, err, out)
		}
	}
	return nil
}
