package extension

import (
	"context"
	"time"

	"flanneld/ip"
	"flanneld/subnet"
)

// NewWithLimit is New with another time limit for commands.
func NewWithLimit(ctx context.Context, c subnet.Config, h ip.Host, limit time.Duration,
	former ...subnet.Record) (*Backend, error) {
	return start(ctx, c, h, limit, former)
}
