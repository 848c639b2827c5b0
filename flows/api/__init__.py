"""The HTTP service that answers predictions beside a learner that runs elsewhere."""
