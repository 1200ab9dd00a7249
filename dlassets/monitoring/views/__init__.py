"""What people look at a lake for, asked of its tables and of MLflow: plain values, and nothing is made or changed."""
