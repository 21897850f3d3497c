package source

import (
	"context"
	"log/slog"
	"time"

	"flanneld/options"
	"flanneld/subnet"
	"flanneld/trigger"
)

// reread is how often the file with the network configuration is read again. kubelet takes up to two minutes to bring a
// ConfigMap that has changed, and exchanges a symbolic link then, which a watch on the file would not see.
const reread = 5 * time.Second

// Configured is a source that can follow another network configuration.
type Configured interface {
	// SetConfig takes in the text of the configuration, whether or not it has changed.
	SetConfig(text []byte)
}

// FollowFile gives a source the text of the file with the network configuration whenever that has changed, until ctx
// ends, and returns nil then. Without a path there is no file. One that cannot be read leaves all as it is.
func FollowFile(ctx context.Context, s Source, path string, log *slog.Logger) error {
	c, ok := s.(Configured)
	if path == "" || !ok {
		return nil
	}
	last, problem := "", ""
	for {
		switch text, err := subnet.ReadFile(path, options.MaxConfigSize); {
		case err != nil && err.Error() != problem:
			problem = err.Error()
			log.Warn("network configuration cannot be read, the previous one stays in use", "reason", err)
		case err == nil && (string(text) != last || problem != ""):
			last, problem = string(text), ""
			c.SetConfig(text)
		}
		if trigger.Pause(ctx, reread) != nil {
			return nil
		}
	}
}
