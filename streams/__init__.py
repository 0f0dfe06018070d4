"""The stream processor: a Faust app that folds behaviour into profiles and publishes recommendation lists."""
